#include "checkpoint/retention.h"

#include <optional>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/manifest.h"
#include "checkpoint/named_checkpoints.h"
#include "checkpoint/run_directory.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

void remove_or_throw(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error)
    throw CheckpointError(problem(cat("cannot be removed: ", error.message())).at(path.string()));
}

// Only what a save wrote: a file that somebody else put there keeps its directory alive.
void remove_shards(const fs::path& directory, const FaultPoint& fault_point) {
  std::vector<fs::path> shards;
  bool foreign = false;
  for (const fs::path& path : entries_if_there(directory)) {
    if (is_shard_name(path.filename().string())) {
      shards.push_back(path);
    } else {
      foreign = true;
    }
  }
  for (const fs::path& shard : shards) {
    remove_or_throw(shard);
    fault_point("shard removed");
  }
  if (foreign) {
    throw CheckpointError(
        problem("its shards are removed, but files that are not of the checkpoint remain")
            .at(directory.string()));
  }
  remove_or_throw(directory);
  fsync_directory(directory.parent_path());
  fault_point("directory removed");
}

// The commit mark goes first and durably: a crash in between leaves something that is plainly no
// checkpoint, never a checkpoint with shards missing.
void remove_checkpoint(const fs::path& directory, const FaultPoint& fault_point) {
  remove_or_throw(directory / kManifestName);
  fsync_directory(directory);
  fault_point("manifest removed");
  remove_shards(directory, fault_point);
}

bool is_sound(const Manifest& manifest, const fs::path& directory) {
  return problem_of([&] {
           for (int64_t file = 0; file < static_cast<int64_t>(manifest.files.size()); ++file)
             check_shard_size(directory, manifest, file);
         })
      .empty();
}

std::vector<Verdict> sound_checkpoints(const RetentionOrder& order, const RunIdentity& run) {
  std::vector<Verdict> sound;
  for (const fs::path& path : removable_directories(order.directory)) {
    Verdict verdict{.path = path, .info = {}, .problem = {}};
    verdict.problem = problem_of([&] {
      const Manifest manifest = read_manifest(path);
      if (manifest.state.run.id == run.id && is_sound(manifest, path) &&
          !order.damaged.contains(path))
        verdict.info = info_of(manifest, path);
    });
    if (verdict.info) sound.push_back(std::move(verdict));
  }
  sort_newest_first(sound);
  return sound;
}

// Of `run`, beside the newest: the last save of each step that is due, and the best.
class Permanent {
 public:
  Permanent(const RetentionOrder& order, const RunIdentity& run,
            const std::vector<Verdict>& newest_first) {
    std::set<int64_t> seen;
    for (const Verdict& verdict : newest_first) {
      const int64_t step = verdict.info->state.step;
      if (order.keep_every > 0 && step % order.keep_every == 0 && seen.insert(step).second)
        stay_.insert(verdict.path);
    }
    if (!order.keep_best) return;
    // Where best.json cannot be read this throws: then nothing is removed.
    const std::optional<BestEvaluations> evaluations = read_best(order.directory);
    if (!evaluations || evaluations->run != run.id) return;
    if (const auto best = find_best(newest_first, *evaluations)) stay_.insert(best->path);
  }
  bool holds(const fs::path& path) const { return stay_.contains(path); }

 private:
  std::set<fs::path> stay_;
};

}  // namespace

std::vector<std::string> apply_retention(const RetentionOrder& order,
                                         const CheckpointInfo& just_written) {
  std::vector<std::string> problems;
  const auto attempt = [&](const auto& removal) {
    if (std::string problem = problem_of(removal); !problem.empty())
      problems.push_back(std::move(problem));
  };
  const auto require_owner = [&] {
    if (order.owner != nullptr) order.owner->require();
  };
  attempt([&] {
    for (const fs::path& path : unfinished_deletions(order.directory)) {
      require_owner();
      attempt([&] { remove_shards(path, order.fault_point); });
    }
  });
  if (order.keep == 0) return problems;
  attempt([&] {
    const RunIdentity& run = just_written.state.run;
    const std::vector<Verdict> sound = sound_checkpoints(order, run);
    const Permanent permanent(order, run, sound);
    int64_t kept = 1;  // the one just written, whatever else is found
    for (const Verdict& verdict : sound) {
      if (verdict.path == just_written.path || kept++ < order.keep) continue;
      if (permanent.holds(verdict.path)) continue;
      require_owner();
      attempt([&] { remove_checkpoint(verdict.path, order.fault_point); });
    }
  });
  return problems;
}

int64_t count_own_checkpoints(const fs::path& directory, const RunIdentity& run) {
  return static_cast<int64_t>(sound_checkpoints({.directory = directory}, run).size());
}

}  // namespace tptrain::checkpoint
