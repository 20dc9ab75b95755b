// One stream of pushes into the memory of other ranks, and the flags by which writer and reader
// take turns (peer_exchange.h). Internal to comm.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "comm/checked_communicator.h"
#include "comm/cuda/event_pool.h"
#include "comm/cuda/shared_block.h"

namespace tptrain::comm {

/// The driver's stream memory operations, found at run time: the program must start where there is
/// no driver library.
struct StreamOperations {
  decltype(&cuStreamBatchMemOp) batch = nullptr;  // null: this driver has none
  /// The device may let a write of another GPU become visible after the flag behind it, unless the
  /// wait for the flag flushes.
  bool flushes = false;
  static StreamOperations find(int device);
};

/// A few flag operations, in order, as one node of the stream.
class FlagOperations {
 public:
  void wait_for(const uint32_t* flag, uint32_t value);
  void write(const uint32_t* flag, uint32_t value);  // behind all earlier writes
  void run(const StreamOperations& driver, cudaStream_t stream, const std::string& where);

 private:
  CUstreamBatchMemOpParams& next();
  std::vector<CUstreamBatchMemOpParams> operations_;
};

/// The caller's current stream.
cudaStream_t compute_stream(at::Device device);

class PushLane {
 public:
  PushLane(std::string axis, int rank, int ranks, at::Device device);
  PushLane(const PushLane&) = delete;
  PushLane& operator=(const PushLane&) = delete;
  ~PushLane();

  const std::string& axis() const { return axis_; }
  int rank() const { return rank_; }
  int ranks() const { return ranks_; }
  /// Of the highest priority: this lane's copies and flags, in program order.
  cudaStream_t stream() const { return stream_; }
  cudaStream_t compute() const { return compute_stream(device_); }
  EventPool::Event event() { return events_.take(axis_); }

  /// What the lane does from here on sees what the compute stream has been given until now.
  void follow_compute();
  void copy(void* to, const void* from, int64_t bytes) const;
  /// Into this rank's part of a peer's slot, `place` bytes from its start, when the peer lets it,
  /// and raises the peer's flag.
  void push(const SharedBlock& block, int slot, int peer, int64_t place, const void* from,
            int64_t bytes) const;
  /// In `stream`: waits for every other rank's part of this rank's slot, or for that of one.
  void receive(const SharedBlock& block, int slot, cudaStream_t stream) const;
  void receive(const SharedBlock& block, int slot, int writer, cudaStream_t stream) const;
  /// In `stream`: this rank's slot is read, the others may write it.
  void release(const SharedBlock& block, int slot, cudaStream_t stream) const;

 private:
  std::string axis_;
  int rank_;
  int ranks_;
  at::Device device_;
  StreamOperations driver_;
  cudaStream_t stream_ = nullptr;
  EventPool events_;
  EventPool::Event produced_;
};

}  // namespace tptrain::comm
