#include "comm/cuda/push_lane.h"

#include <c10/cuda/CUDAStream.h>

#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

StreamOperations StreamOperations::find(int device) {
  StreamOperations found;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  void* address = nullptr;
  if (cudaGetDriverEntryPointByVersion("cuStreamBatchMemOp", &address, 12000, cudaEnableDefault,
                                       &result) == cudaSuccess &&
      result == cudaDriverEntryPointSuccess) {
    found.batch = reinterpret_cast<decltype(&cuStreamBatchMemOp)>(address);
  }
  int can_flush = 0;
  found.flushes =
      cudaDeviceGetAttribute(&can_flush, cudaDevAttrCanFlushRemoteWrites, device) == cudaSuccess &&
      can_flush != 0;
  return found;
}

void FlagOperations::wait_for(const uint32_t* flag, uint32_t value) {
  CUstreamBatchMemOpParams& op = next();
  op.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
  op.waitValue.address = reinterpret_cast<CUdeviceptr>(flag);
  op.waitValue.value = value;
  op.waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
}

void FlagOperations::write(const uint32_t* flag, uint32_t value) {
  CUstreamBatchMemOpParams& op = next();
  op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  op.writeValue.address = reinterpret_cast<CUdeviceptr>(flag);
  op.writeValue.value = value;
  op.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;
}

void FlagOperations::run(const StreamOperations& driver, cudaStream_t stream,
                         const std::string& where) {
  if (operations_.empty()) return;
  for (CUstreamBatchMemOpParams& op : operations_) {
    if (driver.flushes && op.operation == CU_STREAM_MEM_OP_WAIT_VALUE_32)
      op.waitValue.flags |= CU_STREAM_WAIT_VALUE_FLUSH;
  }
  const CUresult code =
      driver.batch(stream, static_cast<unsigned>(operations_.size()), operations_.data(), 0);
  if (code == CUDA_SUCCESS) return;
  throw CommError(problem(cat("cuStreamBatchMemOp failed (CUresult ", static_cast<int>(code), ")"))
                      .at(where)
                      .remedy(cat("parallel.", where, "_overlap: off goes through NCCL instead.")));
}

CUstreamBatchMemOpParams& FlagOperations::next() {
  operations_.emplace_back();
  std::memset(&operations_.back(), 0, sizeof(CUstreamBatchMemOpParams));
  return operations_.back();
}

cudaStream_t compute_stream(at::Device device) {
  return c10::cuda::getCurrentCUDAStream(device.index()).stream();
}

PushLane::PushLane(std::string axis, int rank, int ranks, at::Device device)
    : axis_(std::move(axis)),
      rank_(rank),
      ranks_(ranks),
      device_(device),
      driver_(StreamOperations::find(device.index())),
      produced_(event()) {
  // Not one of torch's pool, which hands the same few out again: a lane that shared the compute
  // stream could wait there for what is queued behind it.
  int least = 0;
  int greatest = 0;
  check_peer_call(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                  "cudaDeviceGetStreamPriorityRange", axis_);
  check_peer_call(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest),
                  "cudaStreamCreateWithPriority", axis_);
}

PushLane::~PushLane() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void PushLane::follow_compute() {
  check_peer_call(cudaEventRecord(produced_.get(), compute()), "cudaEventRecord", axis_);
  check_peer_call(cudaStreamWaitEvent(stream_, produced_.get(), 0), "cudaStreamWaitEvent", axis_);
}

void PushLane::copy(void* to, const void* from, int64_t bytes) const {
  check_peer_call(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
      "cudaMemcpyAsync", axis_);
}

void PushLane::push(const SharedBlock& block, int slot, int peer, int64_t place, const void* from,
                    int64_t bytes) const {
  FlagOperations turn;
  turn.wait_for(block.empty(rank_, slot, peer), 1);
  turn.write(block.empty(rank_, slot, peer), 0);
  turn.run(driver_, stream_, axis_);
  copy(block.slot(peer, slot) + place, from, bytes);
  FlagOperations filled;
  filled.write(block.full(peer, slot, rank_), 1);
  filled.run(driver_, stream_, axis_);
}

void PushLane::receive(const SharedBlock& block, int slot, cudaStream_t stream) const {
  FlagOperations received;
  for (int writer = 0; writer < ranks_; ++writer) {
    if (writer == rank_) continue;
    received.wait_for(block.full(rank_, slot, writer), 1);
    received.write(block.full(rank_, slot, writer), 0);
  }
  received.run(driver_, stream, axis_);
}

void PushLane::receive(const SharedBlock& block, int slot, int writer, cudaStream_t stream) const {
  FlagOperations received;
  received.wait_for(block.full(rank_, slot, writer), 1);
  received.write(block.full(rank_, slot, writer), 0);
  received.run(driver_, stream, axis_);
}

void PushLane::release(const SharedBlock& block, int slot, cudaStream_t stream) const {
  FlagOperations freed;
  for (int writer = 0; writer < ranks_; ++writer) {
    if (writer != rank_) freed.write(block.empty(writer, slot, rank_), 1);
  }
  freed.run(driver_, stream, axis_);
}

}  // namespace tptrain::comm
