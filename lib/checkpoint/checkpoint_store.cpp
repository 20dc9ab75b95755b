// CheckpointStore: recovery at start, choice of the checkpoint to resume, loading from any layout.
// Saving is in save.cpp, removal in retention.cpp.
#include "checkpoint/checkpoint_store.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/load.h"
#include "checkpoint/manifest.h"
#include "checkpoint/random_id.h"
#include "checkpoint/retention.h"
#include "checkpoint/run_directory.h"
#include "checkpoint/save.h"
#include "checkpoint/tensor_index.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;
namespace {

// A `.tmp-*` with a manifest is committed (the manifest comes last, whole and at once): it gets its
// name, and newest() judges its contents like any other's. Without one it is the rest of a save
// that never was.
void recover(const fs::path& directory, const RunOwner* owner) {
  for (const fs::path& temporary : temporary_directories(directory)) {
    if (has_manifest(temporary)) {
      const int64_t step = step_of_temporary_directory(temporary.filename().string());
      rename_durably(temporary, free_step_directory(directory, step));
      continue;
    }
    if (owner != nullptr) owner->require();
    std::error_code error;
    fs::remove_all(temporary, error);
    if (error) {
      throw CheckpointError(
          problem(cat("the rest of an unfinished save cannot be removed: ", error.message()))
              .at(temporary.string())
              .remedy("Remove the directory by hand; it holds no checkpoint."));
    }
    fsync_directory(directory);
  }
}

int64_t highest_sequence(const fs::path& directory) {
  int64_t highest = 0;
  for (const Verdict& verdict : list_checkpoints(directory, Depth::manifest)) {
    if (verdict.info) highest = std::max(highest, verdict.info->save_sequence);
  }
  return highest;
}

}  // namespace

struct CheckpointStore::Impl {
  comm::ControlGroup& group;
  Options options;
  int64_t last_sequence = 0;
  std::string parent_save_id = {};      // of what was loaded or saved last
  std::set<std::string> verified = {};  // path and save id of what these ranks have hashed
  std::set<fs::path> damaged = {};      // what they found to differ from its manifest
  std::vector<std::string> retention_problems = {};
  SaveAgain again = SaveAgain::at_once;

  bool first() const { return group.rank() == 0; }

  /// Every rank parses the bytes that rank 0 read. Collective; throws Refused on every rank alike.
  Manifest shared_manifest(const fs::path& path) {
    std::string message;
    if (first()) {
      std::string text;
      const std::string fault = problem_of([&] { text = read_manifest_text(path); });
      message = fault.empty() ? "+" + text : "-" + fault;
    }
    message = group.broadcast(message, 0);
    if (message.front() == '-') throw Refused(message.substr(1));
    Manifest manifest;
    const std::string fault = problem_of([&] { manifest = parse_manifest(message.substr(1)); });
    if (!fault.empty()) throw Refused(fault);
    return manifest;
  }

  /// Contents of a checkpoint, each shard hashed by one rank, once. Collective; the same answer
  /// everywhere: "" or what is wrong.
  std::string verify_together(const fs::path& path, const Manifest& manifest) {
    const std::string identity = cat(path.string(), " ", manifest.save_id);
    if (verified.contains(identity)) return {};
    std::string mine;
    const auto check_my_share = [&] {
      const TensorIndex covers_every_tensor(manifest.pieces);
      const auto count = static_cast<int64_t>(manifest.files.size());
      int64_t bytes = 0;
      for (int64_t file = group.rank(); file < count; file += group.size())
        bytes += manifest.files[static_cast<size_t>(file)].size_bytes;
      const Work work("checking " + path.filename().string(), WorkUnit::bytes, bytes);
      for (int64_t file = group.rank(); file < count; file += group.size()) {
        check_shard(path, manifest, file);
      }
    };
    comm::agree(
        group, [&] { mine = problem_of(check_my_share); }, OnStop::give_up);
    for (const std::string& fault : group.all_gather(mine)) {
      if (fault.empty()) continue;
      damaged.insert(path);
      return fault;
    }
    verified.insert(identity);
    return {};
  }

  /// The whole judgement of one directory. Collective; throws Refused on every rank alike.
  Manifest judge(const fs::path& path) {
    Manifest manifest = shared_manifest(path);
    const std::string fault = verify_together(path, manifest);
    if (!fault.empty()) throw Refused(fault);
    return manifest;
  }

  /// The same for a directory that was asked for by name. Throws CheckpointError.
  Manifest require_valid(const fs::path& path) {
    try {
      return judge(path);
    } catch (const Refused& e) {
      CheckpointError error(
          problem(plain_message(e))
              .at(path.string())
              .must("be one whole checkpoint, such as run_dir/checkpoints/step-00000100")
              .remedy("`tptrain verify` says which checkpoints of a run are whole."));
      error.set_agreed();
      throw error;
    }
  }

  /// After a failed save that every rank knows of: what rank 0 found out about it, on all of them.
  /// Throws where the reason is that run_dir is another run's. Collective.
  void agree_on_failure() {
    std::string lost = first() ? lost_run_dir() : "";
    if (!lost.empty()) again = SaveAgain::never;
    again = static_cast<SaveAgain>(group.max(first() ? static_cast<int64_t>(again) : 0));
    lost = group.broadcast(lost, 0);
    if (lost.empty()) return;
    Error error(ExitCode::checkpoint, lost);
    error.set_agreed();
    throw error;
  }

  /// What to say of it, or "".
  std::string lost_run_dir() const {
    if (options.owner == nullptr) return {};
    try {
      if (options.owner->look().hold != RunOwner::Look::Hold::lost) return {};
    } catch (const Error&) {
      return {};  // nobody knows: the save's own error is the one to tell
    }
    try {
      options.owner->require();
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  }

  /// What rank 0 sees under the directory by manifest alone, newest first, on every rank.
  std::vector<Verdict> shared_listing(const Select& select) {
    std::vector<Verdict> listing;
    comm::agree(group, [&] {
      if (!first()) return;
      listing = list_checkpoints(options.directory, Depth::manifest);
      if (select) listing = select(listing);
    });
    const int64_t count = group.max(static_cast<int64_t>(listing.size()));
    listing.resize(static_cast<size_t>(count));
    for (Verdict& verdict : listing) {
      verdict.path = group.broadcast(verdict.path.string(), 0);
      verdict.problem = group.broadcast(verdict.problem, 0);
    }
    return listing;
  }
};

CheckpointStore::CheckpointStore(comm::ControlGroup& group, const Options& options)
    : impl_(std::make_unique<Impl>(Impl{.group = group, .options = options})) {
  if (!impl_->options.fault_point) impl_->options.fault_point = [](std::string_view) {};
  comm::agree(group, [&] {
    if (options.keep < 0)
      throw InternalError(
          problem(cat("checkpoint keep is ", options.keep)).must("be 0 (all) or more"));
    if (group.rank() != 0) return;
    create_directories_durably(options.directory);
    recover(options.directory, options.owner);
    impl_->last_sequence = highest_sequence(options.directory);
  });
  impl_->last_sequence = group.max(impl_->last_sequence);
}

CheckpointStore::~CheckpointStore() = default;

const std::vector<std::string>& CheckpointStore::retention_problems() const {
  return impl_->retention_problems;
}

CheckpointStore::Found CheckpointStore::newest(const Select& select) {
  Found found;
  const std::vector<Verdict> listing = impl_->shared_listing(select);
  std::vector<std::pair<std::string, std::string>> refused;  // name and reason
  for (const Verdict& verdict : listing) {
    const std::string name = verdict.path.filename().string();
    if (!verdict.problem.empty()) {
      refused.emplace_back(name, verdict.problem);
      continue;
    }
    if (found.info) continue;  // older than the one found
    try {
      found.info = info_of(impl_->judge(verdict.path), verdict.path);
    } catch (const Refused& e) {
      refused.emplace_back(name, plain_message(e));
    }
  }
  if (listing.empty()) return found;
  if (!found.info) {
    std::string reasons;
    for (const auto& [name, reason] : refused) reasons += cat("\n    ", name, ": ", reason);
    CheckpointError error(
        problem(cat("of ", listing.size(), " checkpoints none is valid:", reasons))
            .at(impl_->options.directory.string())
            .remedy("Restore one of them, or start anew in another run_dir (with checkpoint.resume "
                    "set to the path of another checkpoint, if there is one)."));
    error.set_agreed();
    throw error;
  }
  for (const auto& [name, reason] : refused) {
    found.refused.push_back(cat((impl_->options.directory / name).string(), ": ", reason,
                                ". Resuming from ", found.info->path.filename().string(),
                                ", the newest valid one; remove ", name, " to silence this."));
  }
  return found;
}

CheckpointInfo CheckpointStore::open(const fs::path& path) {
  return info_of(impl_->require_valid(path), path);
}

void CheckpointStore::load_into(sharding::StateDict& state, const CheckpointInfo& from) {
  const Manifest manifest = impl_->require_valid(from.path);
  if (manifest.save_id != from.save_id) {
    CheckpointError error(problem(cat("the directory holds save ", manifest.save_id, ", not ",
                                      from.save_id, " that was found there before"))
                              .at(from.path.string())
                              .remedy("Something else writes into this directory: end it."));
    error.set_agreed();
    throw error;
  }
  load_state(impl_->group, from.path, manifest, state);
  impl_->parent_save_id = manifest.save_id;
}

std::string CheckpointStore::require_space(const sharding::StateDict& state, const RunIdentity& run,
                                           int64_t saves) {
  const SaveBytes bytes = bytes_of_save(impl_->group, state);
  std::string warning;
  comm::agree(impl_->group, [&] {
    if (!impl_->first() || saves < 1) return;
    const int64_t own = count_own_checkpoints(impl_->options.directory, run);
    const int64_t keep = impl_->options.keep;
    const int64_t at_once = keep == 0 ? own + saves : std::min(keep + 1, own + saves);
    const int64_t more = std::max<int64_t>(1, at_once - own);
    warning = check_space_for_run(impl_->options.directory, bytes, more, /*must_fit=*/keep > 0);
  });
  return warning;
}

SaveAgain CheckpointStore::save_again() const { return impl_->again; }

CheckpointInfo CheckpointStore::save(const sharding::StateDict& state,
                                     const TrainState& train_state) {
  Impl& self = *impl_;
  self.retention_problems.clear();
  self.again = SaveAgain::at_once;
  bool run_dir_was_removed = false;
  // Counted before the attempt: a save that fails after its commit must not share its number with
  // the next.
  const SaveOrder order{.directory = self.options.directory,
                        .save_id = self.group.broadcast(self.first() ? random_id() : "", 0),
                        .parent_save_id = self.parent_save_id,
                        .save_sequence = ++self.last_sequence,
                        .owner = self.options.owner,
                        .again = self.again,
                        .run_dir_was_removed = run_dir_was_removed,
                        .fault_point = self.options.fault_point};
  CheckpointInfo saved;
  try {
    saved = save_checkpoint(self.group, order, state, train_state);
  } catch (const Error& e) {
    // The others have left their collectives too only where all of them hold this error.
    if (e.agreed()) self.agree_on_failure();
    throw;
  }
  self.parent_save_id = saved.save_id;
  retain(saved);
  self.again = SaveAgain::never;  // what follows is not about this save
  comm::agree(self.group, [&] {
    if (!run_dir_was_removed) return;
    throw CheckpointError(
        problem(cat("run_dir was removed while this run used it, with its checkpoints, metrics and "
                    "log; the state of step ",
                    train_state.step, " is saved in a new one"))
            .at(saved.path.string())
            .remedy("Start the same command again: it goes on from this checkpoint."));
  });
  return saved;
}

void CheckpointStore::retain(const CheckpointInfo& newest) {
  Impl& self = *impl_;
  self.retention_problems.clear();
  if (self.first() && newest.path.parent_path() == self.options.directory) {
    self.retention_problems = apply_retention({.directory = self.options.directory,
                                               .keep = self.options.keep,
                                               .damaged = self.damaged,
                                               .owner = self.options.owner,
                                               .fault_point = self.options.fault_point},
                                              newest);
  }
  self.group.barrier();  // no rank goes on while rank 0 still removes: a rank that left would find
                         // a busy directory at its next step
}

}  // namespace tptrain::checkpoint
