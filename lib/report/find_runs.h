// Which run directories the paths of a user mean.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tptrain::report {

struct FoundRun {
  std::filesystem::path path;
  std::string name;  // the end of the path that tells it from the others, printable
};

/// Each path is a run directory (it holds metrics.jsonl, log.txt or resolved_config.yaml), or a
/// folder of them (one or two levels below, as a sweep leaves them), in the order of their names.
/// Throws DataError naming the path where one is missing or holds none.
std::vector<FoundRun> find_runs(const std::vector<std::string>& paths);

}  // namespace tptrain::report
