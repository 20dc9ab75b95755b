#include "train/hang_timeout.h"

#include <exception>

#include "base/files.h"
#include "config/parse.h"

namespace tptrain::train {

std::chrono::milliseconds early_hang_timeout(const std::string& config_path,
                                             const std::vector<std::string>& overrides) {
  config::RunConfig run;
  try {
    run = config::parse_run_config(read_file(config_path, kMaxRunFileBytes), config_path, overrides)
              .config;
  } catch (const std::exception&) {
    // The file lies on rank 0's host alone, or is wrong: rank 0 will say so.
  }
  return std::chrono::seconds(run.train.hang_timeout_s);
}

}  // namespace tptrain::train
