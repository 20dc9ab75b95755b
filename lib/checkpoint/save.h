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
  FaultPoint fault_point;
};

/// Collective. An error on any rank is thrown on every rank; until the manifest is renamed into
/// place nothing remains of the attempt, afterwards it is committed.
CheckpointInfo save_checkpoint(comm::ControlGroup& group, const SaveOrder& order,
                               const sharding::StateDict& state, const TrainState& train_state);

}  // namespace tptrain::checkpoint
