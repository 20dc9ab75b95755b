#include "comm/cuda/shared_block.h"

#include <cstring>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

void check_peer_call(cudaError_t code, const char* call, const std::string& where) {
  if (code == cudaSuccess) return;
  throw CommError(problem(cat(call, " failed (", cudaGetErrorString(code), ")"))
                      .at(where)
                      .remedy(cat("parallel.", where,
                                  "_overlap: off goes through NCCL instead of direct copies.")));
}

SharedBlock::SharedBlock(int rank, int ranks, int64_t slot_bytes, int slots)
    : rank_(rank), ranks_(ranks), slot_bytes_(slot_bytes), slots_(slots) {}

// By way of the other constructor, so that what was taken is given back where this one throws.
SharedBlock::SharedBlock(ControlGroup& group, const std::string& axis, int64_t slot_bytes,
                         int slots)
    : SharedBlock(group.rank(), group.size(), slot_bytes, slots) {
  std::string handle(sizeof(cudaIpcMemHandle_t), '\0');
  agree(group, [&] {
    if (2 * slots * ranks_ * static_cast<int64_t>(sizeof(uint32_t)) > kFlagBytes)
      throw InternalError(problem(cat(slots, " slots for ", ranks_, " ranks")));
    check_peer_call(cudaMalloc(&own_, static_cast<size_t>(bytes())), "cudaMalloc", axis);
    check_peer_call(cudaMemset(own_, 0, static_cast<size_t>(bytes())), "cudaMemset", axis);
    const std::vector<uint32_t> ones(static_cast<size_t>(slots * ranks_), 1);
    check_peer_call(cudaMemcpy(flag(own_, 0, Flag::empty, 0), ones.data(),
                               ones.size() * sizeof(uint32_t), cudaMemcpyHostToDevice),
                    "cudaMemcpy", axis);
    check_peer_call(cudaDeviceSynchronize(), "cudaDeviceSynchronize", axis);
    cudaIpcMemHandle_t own_handle;
    check_peer_call(cudaIpcGetMemHandle(&own_handle, own_), "cudaIpcGetMemHandle", axis);
    std::memcpy(handle.data(), &own_handle, sizeof own_handle);
  });
  const std::vector<std::string> handles = group.all_gather(handle);
  base_.assign(static_cast<size_t>(ranks_), nullptr);
  agree(group, [&] {
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer == rank_) {
        base_[peer] = own_;
        continue;
      }
      cudaIpcMemHandle_t theirs;
      std::memcpy(&theirs, handles[peer].data(), sizeof theirs);
      check_peer_call(cudaIpcOpenMemHandle(&base_[peer], theirs, cudaIpcMemLazyEnablePeerAccess),
                      "cudaIpcOpenMemHandle", axis);
    }
  });
  group.barrier();
}

void SharedBlock::raise_own_flags(cudaStream_t stream, const std::string& axis) {
  const std::vector<uint32_t> ones(static_cast<size_t>(2 * slots_ * ranks_), 1);
  check_peer_call(cudaMemcpyAsync(own_, ones.data(), ones.size() * sizeof(uint32_t),
                                  cudaMemcpyHostToDevice, stream),
                  "cudaMemcpyAsync", axis);
  check_peer_call(cudaStreamSynchronize(stream), "cudaStreamSynchronize", axis);
}

SharedBlock::~SharedBlock() {
  close();
  if (own_ != nullptr) cudaFree(own_);
}

void SharedBlock::close() {
  for (int peer = 0; peer < static_cast<int>(base_.size()); ++peer) {
    if (peer != rank_ && base_[peer] != nullptr) cudaIpcCloseMemHandle(base_[peer]);
    base_[peer] = nullptr;
  }
}

}  // namespace tptrain::comm
