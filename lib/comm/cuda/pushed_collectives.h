// Whole all-gathers and reduce-scatters by copy engines, beside the kernels of the compute stream.
// A call goes in chunks, and each chunk through a slot of the memory that the ranks have opened to
// each other: push to every peer, wait for theirs, then copy or add up what has come. Chunks take
// turns among a few lanes, so that the link carries one while another is summed. Internal to comm.
//
// Instead of NCCL's blocks, which hold multiprocessors from a collective's start to its end, the
// device's kernels lose only the time of the sums.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/cuda/push_lane.h"
#include "comm/cuda/shared_block.h"
#include "comm/peer_exchange.h"

namespace tptrain::comm {

class PushedCollectives {
 public:
  /// `group` must outlive it. Takes nothing of the device before open().
  PushedCollectives(ControlGroup& group, const std::string& axis, at::Device device);

  /// Collective on the host, once. Throws agreed on every rank.
  void open();
  bool is_open() const { return block_.has_value(); }
  SharedBlock& block() { return *block_; }

  /// As Communicator's; contiguous tensors. Elements of a gather are only copied: any dtype.
  std::unique_ptr<Work> start_all_gather(const at::Tensor& output, const at::Tensor& input);
  /// bf16 or fp32; sums in fp32 in the order of ranks, rounded once.
  std::unique_ptr<Work> start_reduce_scatter(const at::Tensor& output, const at::Tensor& input);

 private:
  class PushedWork;
  struct Chunk {
    int64_t begin = 0;  // bytes of a piece
    int64_t bytes = 0;
  };
  enum class Kind { gather, sum };
  std::unique_ptr<Work> start(Kind kind, const at::Tensor& output, const at::Tensor& input,
                              int64_t piece_bytes);
  void gather_chunk(PushLane& lane, int slot, const at::Tensor& output, const at::Tensor& input,
                    Chunk chunk);
  void sum_chunk(PushLane& lane, int slot, const at::Tensor& output, const at::Tensor& input,
                 Chunk chunk);

  ControlGroup& group_;
  std::string axis_;
  at::Device device_;
  std::array<std::unique_ptr<PushLane>, kPushLanes> lanes_;
  std::optional<SharedBlock> block_;  // a slot for each lane
  int next_ = 0;                      // the lane of the next chunk; the same on every rank
};

}  // namespace tptrain::comm
