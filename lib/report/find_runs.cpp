#include "report/find_runs.h"

#include <algorithm>
#include <set>

#include "base/directory.h"
#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"

namespace tptrain::report {
namespace {

namespace fs = std::filesystem;

bool is_run(const fs::path& path) {
  return is_file(path / "metrics.jsonl") || is_file(path / "resolved_config.yaml") ||
         is_file(path / "log.txt");
}

std::vector<fs::path> folders_in(const fs::path& path) {
  std::vector<fs::path> folders = entries_if_readable(path);
  std::erase_if(folders, [](const fs::path& entry) {
    std::error_code ignored;
    return !fs::is_directory(entry, ignored);
  });
  return folders;
}

void add_runs_below(const fs::path& path, int levels, std::vector<fs::path>& runs) {
  if (is_run(path)) {
    runs.push_back(path);
    return;
  }
  if (levels == 0) return;
  for (const fs::path& folder : folders_in(path)) add_runs_below(folder, levels - 1, runs);
}

/// The last `parts` of a path: "sweep/a" of "runs/sweep/a" for 2.
std::string tail_of(const fs::path& path, size_t parts) {
  const std::vector<fs::path> all(path.begin(), path.end());
  fs::path tail;
  for (size_t i = all.size() - std::min(parts, all.size()); i < all.size(); ++i) tail /= all[i];
  return printable_line(replace_invalid_utf8(tail.string()));
}

/// As few of the last parts of each path as tell all of them apart.
std::vector<std::string> names_of(const std::vector<fs::path>& runs) {
  constexpr size_t kMost = 8;
  std::vector<std::string> names;
  for (size_t parts = 1; parts <= kMost; ++parts) {
    names.clear();
    for (const fs::path& run : runs) names.push_back(tail_of(run, parts));
    if (std::set<std::string>(names.begin(), names.end()).size() == names.size()) break;
  }
  return names;
}

}  // namespace

std::vector<FoundRun> find_runs(const std::vector<std::string>& paths) {
  std::vector<fs::path> runs;
  for (const std::string& path : paths) {
    std::error_code failed;
    if (!fs::is_directory(path, failed)) {
      throw DataError(problem("there is no such folder")
                          .at(path)
                          .must("be a run directory (run_dir of the run file), or a folder of "
                                "them"));
    }
    const size_t before = runs.size();
    // Without "..", "." and a slash at its end, so that it has a name.
    fs::path clean = fs::weakly_canonical(path, failed);
    add_runs_below(failed ? fs::path(path) : clean, 2, runs);
    if (runs.size() == before) {
      throw DataError(problem("no run is in this folder")
                          .at(path)
                          .must("hold metrics.jsonl, or folders that do")
                          .remedy("A run writes it into run_dir at its first step."));
    }
  }
  std::set<fs::path> seen;
  std::erase_if(runs, [&](const fs::path& run) { return !seen.insert(run).second; });
  const std::vector<std::string> names = names_of(runs);
  std::vector<FoundRun> found;
  for (size_t i = 0; i < runs.size(); ++i) found.push_back({runs[i], names[i]});
  return found;
}

}  // namespace tptrain::report
