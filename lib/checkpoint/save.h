// One save, from the first check to the acknowledged commit (docs/checkpoints.md, "How a save
// becomes durable").
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/manifest.h"
#include "checkpoint/shard_plan.h"

namespace tptrain::checkpoint {

/// `fault_point` gets "temporary directory made", "shard half written", "shard written", "records
/// gathered", "directory synced", "committed", "acknowledged"; and of retention: "manifest
/// removed", "shard removed", "directory removed". "shard ..." on every rank, the others on rank 0.
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

/// One attempt. Until the manifest is renamed into place discard() removes all of it, afterwards it
/// is committed. What is Collective throws an error of any rank on every rank.
class Save {
 public:
  /// All that is checked before a byte is written; makes the temporary directory. The tensors of
  /// `state` must hold what they hold now until write_shard() has returned. Collective.
  Save(comm::ControlGroup& group, SaveOrder order, const sharding::StateDict& state,
       const TrainState& train_state);
  Save(const Save&) = delete;

  /// This rank's shard. Communicates nothing; on any thread, where the state is in host memory.
  void write_shard();
  /// When write_shard() has returned on all ranks. Collective.
  void gather_records();
  /// Rank 0 alone, after that. Communicates nothing; any thread.
  CheckpointInfo commit();
  /// After an error.
  void discard();
  /// From another thread: write_shard() ends soon, with an error.
  void give_up() { given_up_ = true; }

  int64_t bytes_of_shard() const;
  int64_t bytes_to_write() const;                           // of its values; any thread
  int64_t bytes_of_shards() const { return shard_bytes_; }  // of all ranks
  const Manifest& manifest() const { return manifest_; }

 private:
  comm::ControlGroup& group_;
  SaveOrder order_;
  std::filesystem::path temporary_;
  Manifest manifest_;  // its pieces: rank 0
  ShardPlan plan_;
  int64_t shard_bytes_ = 0;
  DurableFile::Written written_;
  std::atomic<bool> given_up_ = false;
  std::atomic<int64_t> values_written_ = 0;
};

}  // namespace tptrain::checkpoint
