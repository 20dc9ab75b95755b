// Checkpoints of one run: StateDict <-> committed directory, by the protocol and format of
// docs/checkpoints.md (one shard per rank, manifest last, a valid self-hash is the commit). Knows
// no layer and no optimizer. Reads nothing it has not verified.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/run_identity.h"
#include "comm/control.h"
#include "sharding/state_dict.h"

namespace tptrain::checkpoint {

/// Everything in a manifest that is not about files: what resume needs and checks.
struct TrainState {
  int64_t step = 0;          // steps done
  int64_t updates_done = 0;  // of the optimizer: steps less those skipped
  int64_t tokens_seen = 0;
  std::string model_json;      // DecoderConfig as config.json text
  std::string config_hash;     // of what decides the training (not of run_dir, logging, ...)
  std::string tokenizer_name;  // as data.tokenizer names it
  std::string tokenizer_hash;
  std::string data_identity;
  int64_t global_batch_size = 0;
  int dp_size = 1;
  int tp_size = 1;
  int zero_stage = 0;
  RunIdentity run = {};
  /// What decides the training, key of the run file -> value as YAML text; empty in a checkpoint
  /// written before they were kept.
  std::map<std::string, std::string> settings = {};
  /// Small named values of whatever else resumes: opaque to this folder, kept as they are.
  std::map<std::string, std::string> extra = {};
  /// The weights of a Hugging Face directory that the run began with: where they lay, and what they
  /// were; both "" where it began with random values.
  std::string base_path = {};
  std::string base_identity = {};
};

struct CheckpointInfo {
  std::filesystem::path path;
  std::string save_id;
  std::string parent_save_id;  // "" for the first
  int64_t save_sequence = 0;
  TrainState state;
  std::vector<sharding::StateKind> kinds = {};  // that its tensors have, kMaster first
};

/// Outcome of looking at one directory under checkpoints/.
struct Verdict {
  std::filesystem::path path;
  std::optional<CheckpointInfo> info;  // where the manifest is valid
  std::string problem;                 // "" where everything that was looked at holds
};

enum class Depth {
  manifest,
  weights,  // and that the pieces cover every tensor exactly once, the sizes of the shards, and the
            // SHA-256 of what of them holds weights
  contents  // of all of them
};

/// Looks at one checkpoint directory; never throws for what it finds in it.
Verdict verify(const std::filesystem::path& directory, Depth depth);
/// All candidates under checkpoints/ (finishing no rename), newest save_sequence first, invalid
/// ones last.
std::vector<Verdict> list_checkpoints(const std::filesystem::path& checkpoints_dir, Depth depth);

/// A checkpoint as a TensorSource of master weights; and of any kind by `read_state`. Bytes are
/// hashed before they are read the first time, and only those. Usable by one process alone (tools)
/// or by every rank for itself.
class CheckpointReader final : public sharding::TensorSource {
 public:
  /// Throws CheckpointError where the manifest, a shard's size or its header is not as it should
  /// be.
  explicit CheckpointReader(const std::filesystem::path& directory);
  ~CheckpointReader() override;
  const CheckpointInfo& info() const;
  std::vector<sharding::TensorInfo> tensors() const override;
  // Both throw CheckpointError, naming the shard and the chunk, where it changed after its commit.
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override;
  void read_state(std::string_view kind, const sharding::ShardSpec& spec, int64_t begin,
                  int64_t end, at::Tensor& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class RunOwner;

/// What one may hope for after a save that failed.
enum class SaveAgain {
  at_once,  // a fault of the moment, perhaps: the disk, the network
  later,    // there is no room for it
  never     // run_dir is another run's by now, or the program is at fault
};

class CheckpointStore {
 public:
  struct Options {
    std::filesystem::path directory;  // run_dir/checkpoints
    int64_t keep = 2;                 // 0: all
    int64_t keep_every = 0;           // those of every so many steps stay beside them; 0: none
    bool keep_best = false;           // and the best one (named_checkpoints.h)
    // Of run_dir, on rank 0; asked before anything is committed or removed. Null: nobody else
    // writes there.
    const RunOwner* owner = nullptr;
    // For tests: called after each step of the protocol with its name (save.h lists them); what it
    // throws is a failure of that step, _exit() a crash.
    std::function<void(std::string_view)> fault_point = {};
  };
  /// Collective: creates the directory, finishes the rename of committed .tmp-* directories,
  /// removes uncommitted ones. `group` must outlive it.
  CheckpointStore(comm::ControlGroup& group, const Options& options);
  ~CheckpointStore();

  /// Newest valid checkpoint (highest save_sequence, contents verified), with the reasons others
  /// were refused; nothing where the directory holds none at all. Throws CheckpointError where
  /// checkpoints exist but none is valid. `select`: called on rank 0 with what the directory holds,
  /// by manifest alone and newest first; returns those of them that are meant. What it throws is
  /// thrown on every rank. Collective; every rank returns the same.
  struct Found {
    std::optional<CheckpointInfo> info;
    std::vector<std::string> refused;  // one line each, for the log
  };
  using Select = std::function<std::vector<Verdict>(const std::vector<Verdict>&)>;
  Found newest(const Select& select = {});
  /// One named directory (resume: PATH). Throws CheckpointError where it is not valid. Collective.
  CheckpointInfo open(const std::filesystem::path& path);

  /// Fills every piece of `state`, from any layout. Throws CheckpointError: tensors missing or of
  /// another shape, another model. Collective.
  void load_into(sharding::StateDict& state, const CheckpointInfo& from);
  /// The same of the weights alone, whatever else `from` holds; what is saved then does not come
  /// from it. Collective.
  void load_weights_into(sharding::StateDict& weights, const CheckpointInfo& from);

  /// Throws CheckpointError where the disk has no room for the checkpoints that the run will hold
  /// at once: `keep`, those that stay beside them (`staying` of keep_every) and one, or fewer where
  /// it makes no more than `saves`. Returns a warning, on rank 0, where `keep` is 0 and all of them
  /// together do not fit. Collective.
  std::string require_space(const sharding::StateDict& state, const RunIdentity& run, int64_t saves,
                            int64_t staying = 0);

  // A save beside whatever else the caller does, in these steps; one at a time.

  /// All that is checked before a byte is written. Throws as save() does. `state`, in host memory,
  /// need not hold its values yet. Collective.
  void begin_save(const sharding::StateDict& state, const TrainState& train_state);
  /// From here on `state` holds what is to be saved, and stays so until the save has ended: this
  /// rank's shard is written and hashed by other threads. Called by each rank when it likes.
  void start_writing();
  bool is_saving() const;
  /// What this rank has done of the step that is under way, without waiting for it.
  enum class Progress { busy, done, failed };
  Progress save_progress() const;
  /// When every rank has done its step, or one has failed (then after give_up_writing()); else it
  /// waits for them. The next step
  /// begins: rank 0 commits, and removes what is old. Returns what was committed where there is no
  /// next step. Throws as save() does, after which no save is under way. Collective.
  std::optional<CheckpointInfo> continue_save();
  /// Another rank's part has failed: this one's ends soon.
  void give_up_writing();
  /// For a run that ends by an error: of the save that is under way nothing works on any longer.
  /// What it has written is no checkpoint, and the next start removes it. This rank alone.
  void abandon_save();
  /// Of all ranks, of the save that is under way or ended last.
  int64_t save_bytes() const;
  /// What this rank has still to write of the save that is under way.
  int64_t bytes_to_write() const;
  /// When the last one was committed; on ranks other than 0, when they knew of it.
  std::chrono::steady_clock::time_point committed_at() const;

  /// Writes and commits; then retention. Returns what was committed. On an error on any rank every
  /// rank throws the same CheckpointError and what was committed before is untouched. Where run_dir
  /// had been removed it is made again, and the error is thrown after the commit. Collective.
  CheckpointInfo save(const sharding::StateDict& state, const TrainState& train_state);
  /// After a save that threw an agreed() error; the same on every rank.
  SaveAgain save_again() const;

  /// Retention alone, for the run of `newest`, which is of this store. Collective.
  void retain(const CheckpointInfo& newest);

  /// What retention could not remove the last time, one line each, for the log of rank 0
  /// (empty elsewhere): no reason to end a training whose checkpoint is safe.
  const std::vector<std::string>& retention_problems() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::checkpoint
