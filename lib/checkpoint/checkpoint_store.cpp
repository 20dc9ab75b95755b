// CheckpointStore: recovery at start, choice of the checkpoint to resume, loading from any layout.
// Saving is in store_saving.cpp and save.cpp, removal in retention.cpp.
#include "checkpoint/checkpoint_store.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/load.h"
#include "checkpoint/store_impl.h"

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
    do {
      fs::remove_all(temporary, error);
    } while (error == std::errc::interrupted);
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

CheckpointStore::CheckpointStore(comm::ControlGroup& group, const Options& options)
    : impl_(new Impl{.group = group, .options = options}) {
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
  load_state(impl_->group, from.path, manifest, state, Wanted::all);
  impl_->parent_save_id = manifest.save_id;
}

void CheckpointStore::load_weights_into(sharding::StateDict& weights, const CheckpointInfo& from) {
  load_state(impl_->group, from.path, impl_->require_valid(from.path), weights, Wanted::weights);
}

}  // namespace tptrain::checkpoint
