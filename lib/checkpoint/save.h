// One save, from the first check to the acknowledged commit (docs/checkpoints.md, "How a save
// becomes durable").
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint_store.h"

namespace tptrain::checkpoint {

/// Called after each step of a save: "temporary directory made", "shard half written", "shard
/// written", "records gathered", "directory synced", "committed", "acknowledged"; and of retention:
/// "manifest removed", "shard removed", "directory removed". "shard ..." on every rank, the others
/// on rank 0.
using FaultPoint = std::function<void(std::string_view)>;

struct SaveOrder {
  std::filesystem::path directory;  // run_dir/checkpoints; exists
  std::string save_id;              // the same on every rank
  std::string parent_save_id;
  int64_t save_sequence = 0;
  const RunOwner* owner = nullptr;
  SaveAgain& again;           // rank 0 says here what a failure means
  bool& run_dir_was_removed;  // and here that it had to make run_dir again
  FaultPoint fault_point;
};

/// What one save writes, over all ranks.
struct SaveBytes {
  int64_t shards = 0;
  int64_t manifest = 0;
};
/// Collective.
SaveBytes bytes_of_save(comm::ControlGroup& group, const sharding::StateDict& state);

/// Whether `count` saves more fit, on one rank. Throws CheckpointError, naming all that is counted,
/// where not even one does, or not all and `must_fit`; else returns it as a warning, or "".
std::string check_space_for_run(const std::filesystem::path& directory, const SaveBytes& bytes,
                                int64_t count, bool must_fit);

/// Collective. An error on any rank is thrown on every rank; until the manifest is renamed into
/// place nothing remains of the attempt, afterwards it is committed.
CheckpointInfo save_checkpoint(comm::ControlGroup& group, const SaveOrder& order,
                               const sharding::StateDict& state, const TrainState& train_state);

}  // namespace tptrain::checkpoint
