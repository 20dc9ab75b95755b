#include "checkpoint/find_checkpoints.h"

#include <filesystem>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/named_checkpoints.h"

namespace tptrain::checkpoint {
namespace fs = std::filesystem;

namespace {

// Also one that lost its manifest: shards alone are a checkpoint whose manifest is missing, not a
// directory of checkpoints.
bool is_checkpoint(const fs::path& directory) {
  if (fs::exists(directory / "manifest.json")) return true;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("shard-", 0) == 0 && entry.path().extension() == ".safetensors") return true;
  }
  return false;
}

fs::path directory_of_checkpoints(const fs::path& path) {
  const fs::path inner = path / "checkpoints";
  return fs::is_directory(inner) ? inner : path;
}

Verdict find_named_best(const fs::path& of, Depth depth) {
  const fs::path directory = directory_of_checkpoints(of);
  const std::optional<BestEvaluations> evaluations = read_best(directory);
  if (!evaluations) {
    throw CheckpointError(
        problem("no checkpoint is the best here")
            .at(directory.string())
            .remedy("A run names one where checkpoint.keep_best is eval_loss and data.eval is "
                    "evaluated; `last` is its newest."));
  }
  const std::optional<Best> best =
      find_best(list_checkpoints(directory, Depth::manifest), *evaluations);
  if (!best) {
    throw CheckpointError(problem("the best checkpoint is not here any more")
                              .at(directory.string())
                              .remedy("Restore it, or take another one; `last` is the newest."));
  }
  return verify(best->path, depth);
}

}  // namespace

std::vector<Verdict> find_checkpoints(const std::string& path, Depth depth) {
  try {
    if (const std::optional<NamedPath> named = as_named_path(path)) {
      if (named->name == "best") return {find_named_best(named->of, depth)};
      return find_checkpoints(named->of.string(), depth);
    }
    if (!fs::exists(path)) {
      throw CheckpointError(problem("there is no such directory")
                                .at(path)
                                .remedy("Give the path of a checkpoint, of a "
                                        "directory of checkpoints, or of a run."));
    }
    if (!fs::is_directory(path)) {
      throw CheckpointError(problem("this is no directory")
                                .at(path)
                                .must("be a checkpoint, a directory of checkpoints, or a run "
                                      "directory"));
    }
    if (is_checkpoint(path)) return {verify(path, depth)};
    const fs::path directory = directory_of_checkpoints(path);
    std::vector<Verdict> verdicts = list_checkpoints(directory, depth);
    if (!verdicts.empty()) return verdicts;
    throw CheckpointError(
        problem("no checkpoint is in this directory")
            .at(directory.string())
            .remedy(
                "A run writes them to run_dir/checkpoints; checkpoint.save_steps says how often."));
  } catch (const fs::filesystem_error& e) {
    throw CheckpointError(problem(cat("cannot be read: ", e.code().message())).at(path));
  }
}

NewestValid newest_valid(const std::string& path) {
  NewestValid newest;
  // Newest first. Hashing is what takes time, so older ones are only looked at where it comes to
  // them, and one that has no other beside it is left to its reader, who hashes what it reads.
  const std::vector<Verdict> all = find_checkpoints(path, Depth::manifest);
  for (const Verdict& found : all) {
    if (found.info && !newest.path.empty()) continue;
    const Verdict verdict =
        found.info && all.size() > 1 ? verify(found.path, Depth::weights) : found;
    if (verdict.problem.empty()) {
      newest.path = verdict.path;
      continue;
    }
    newest.not_used.push_back(problem(verdict.problem).at(verdict.path.string()));
  }
  if (newest.path.empty()) throw CheckpointError(newest.not_used);
  return newest;
}

}  // namespace tptrain::checkpoint
