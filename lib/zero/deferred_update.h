// The update of a step, block by block under the next step's forward. Where it is asked for on CUDA
// a block is updated a few blocks before its forward, on a stream of its own: the update is bound
// by memory, the forward's products by arithmetic. Else it is when it is needed. Knows no
// parameters and no communication; what may be read or written before a block is updated is the
// caller's affair.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <memory>
#include <optional>
#include <vector>

#include "optim/update_rule.h"

namespace tptrain::zero {

class DeferredUpdate {
 public:
  /// Part p of an update is the blocks from p * of_part on, that many of them.
  struct Blocks {
    int count = 0;
    int of_part = 1;
    /// On CUDA; else each directly before it is needed, where nothing contends with it.
    bool beside_others = true;
  };
  /// `numbers` keep their memory; their `finite` holds what it holds in begin() until the blocks
  /// are updated. Where parts of `update` are collective, so are all calls here.
  DeferredUpdate(std::unique_ptr<optim::Update> update, const Blocks& blocks, at::Device device,
                 const optim::UpdateStep& numbers);
  DeferredUpdate(const DeferredUpdate&) = delete;
  /// Memory that an update still writes is free for others afterwards, in the current stream.
  ~DeferredUpdate();

  /// A new update, of all blocks, when none is in flight: its numbers are taken now, in the current
  /// stream.
  void begin();
  /// The host's side of begin() alone: the device's has been, or will be, done by a graph.
  void assume_begun();

  /// Updates the blocks behind `block` that are next, beside what the current stream is given from
  /// here on.
  void run_ahead(int block);
  /// The block is updated, from here on in the current stream.
  void wait_for(int block);
  /// All blocks are; no work of another stream is left open.
  void wait_for_all();

 private:
  enum class State { pending, in_flight, done };

  void wait_for_part(int part);

  std::unique_ptr<optim::Update> update_;
  optim::UpdateStep numbers_;
  c10::Device device_;
  int blocks_, blocks_of_part_;
  std::vector<State> states_;  // of the parts
  // Of CUDA:
  std::optional<c10::Stream> beside_;
  std::vector<c10::Event> updated_;    // of each part that is in flight
  std::optional<c10::Event> reached_;  // by the current stream, where it set blocks off
};

}  // namespace tptrain::zero
