// A copy of the state in host memory, made beside the step that follows it: on CUDA on a stream of
// its own, on the CPU by a thread. Knows no files; whoever updates the state next asks it first.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/background.h"
#include "sharding/state_dict.h"
#include "zero/host_memory.h"

namespace tptrain::zero {

class StateSnapshot {
 public:
  /// Of the pieces that this rank saves, as they are kept: what a snapshot takes.
  static int64_t bytes_of(const sharding::StateDict& state);

  /// Memory for what is saved of `live`, whose tensors are on `device`. Throws as HostMemory does.
  StateSnapshot(const sharding::StateDict& live, c10::Device device);
  /// Waits for a copy that is under way.
  ~StateSnapshot();
  StateSnapshot(const StateSnapshot&) = delete;

  /// Copies what `live`, of the same pieces, holds after all that the current stream was given. The
  /// copy before this one must be complete.
  void begin(const sharding::StateDict& live);
  /// What the current stream is given from here on, or this thread does, comes after the copy: it
  /// may write into the state.
  void let_state_change();
  /// Without waiting.
  bool is_complete();
  void wait();
  /// The copies, as pieces that are saved.
  const sharding::StateDict& copy() const { return copy_; }

 private:
  class HostCopy;
  void copy_on_stream(const std::vector<at::Tensor>& from);

  c10::Device device_;
  HostMemory memory_;
  sharding::StateDict copy_;
  // Of CUDA:
  std::optional<c10::Stream> beside_;
  std::optional<c10::Event> reached_;
  std::optional<c10::Event> copied_;
  // Of the CPU; these go first, they write into the copies. Null: none is under way.
  int threads_ = 1;
  std::unique_ptr<BackgroundJob> taking_pages_;
  std::unique_ptr<HostCopy> copying_;
  bool complete_ = true;
};

}  // namespace tptrain::zero
