#include "checkpoint/directory_scan.h"

#include <algorithm>
#include <functional>
#include <system_error>
#include <tuple>

#include "base/directory.h"
#include "base/error.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

std::vector<fs::path> entries_where(const fs::path& directory,
                                    const std::function<bool(const fs::path&)>& wanted) {
  std::vector<fs::path> paths = entries_if_there(directory);
  std::erase_if(paths, [&](const fs::path& path) { return !wanted(path); });
  return paths;
}

bool leads_to_directory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::string name_of(const fs::path& path) { return path.filename().string(); }

}  // namespace

std::vector<fs::path> entries_if_there(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory, error) && !error) return {};
  return entries_of(directory, FailAs::checkpoint_error);
}

bool has_manifest(const fs::path& directory) { return is_taken(directory / kManifestName); }

std::vector<fs::path> candidate_directories(const fs::path& checkpoints_dir) {
  return entries_where(checkpoints_dir, [](const fs::path& path) {
    if (!leads_to_directory(path) || is_temporary_directory_name(name_of(path))) return false;
    if (has_manifest(path)) return true;
    if (!is_step_directory_name(name_of(path))) return false;
    const std::vector<fs::path> files = entries_if_there(path);
    return std::any_of(files.begin(), files.end(),
                       [](const fs::path& file) { return is_shard_name(name_of(file)); });
  });
}

std::vector<fs::path> temporary_directories(const fs::path& checkpoints_dir) {
  return entries_where(checkpoints_dir, [](const fs::path& path) {
    return is_temporary_directory_name(name_of(path)) && is_real_directory(path);
  });
}

std::vector<fs::path> removable_directories(const fs::path& checkpoints_dir) {
  return entries_where(checkpoints_dir, [](const fs::path& path) {
    return is_step_directory_name(name_of(path)) && is_real_directory(path) && has_manifest(path);
  });
}

std::vector<fs::path> unfinished_deletions(const fs::path& checkpoints_dir) {
  return entries_where(checkpoints_dir, [](const fs::path& path) {
    if (!is_step_directory_name(name_of(path)) || !is_real_directory(path) || has_manifest(path))
      return false;
    const std::vector<fs::path> files = entries_if_there(path);
    return std::all_of(files.begin(), files.end(),
                       [](const fs::path& file) { return is_shard_name(name_of(file)); });
  });
}

fs::path free_step_directory(const fs::path& checkpoints_dir, int64_t step) {
  for (int64_t attempt = 1;; ++attempt) {
    fs::path path = checkpoints_dir / step_directory_name(step, attempt);
    if (!is_taken(path)) return path;
  }
}

void sort_newest_first(std::vector<Verdict>& verdicts) {
  const auto rank = [](const Verdict& v) {
    const bool valid = v.info.has_value() && v.problem.empty();
    return std::make_tuple(!valid, valid ? -v.info->save_sequence : 0);
  };
  std::stable_sort(verdicts.begin(), verdicts.end(),
                   [&](const Verdict& a, const Verdict& b) { return rank(a) < rank(b); });
}

std::vector<Verdict> list_checkpoints(const fs::path& checkpoints_dir, Depth depth) {
  std::vector<Verdict> verdicts;
  for (const fs::path& path : candidate_directories(checkpoints_dir))
    verdicts.push_back(verify(path, depth));
  // A save that was committed but whose rename did not happen is a checkpoint; the next training
  // run finishes it.
  for (const fs::path& path : temporary_directories(checkpoints_dir)) {
    if (has_manifest(path)) verdicts.push_back(verify(path, depth));
  }
  sort_newest_first(verdicts);
  return verdicts;
}

}  // namespace tptrain::checkpoint
