// run_dir/attempts.jsonl: one line for each time that the launcher started the job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/hosts.h"

namespace tptrain::launch {

struct Attempt {
  int64_t number = 1;  // of this launch
  double began = 0;    // seconds since 1970
  double ended = 0;
  int64_t ranks = 0;
  std::vector<Host> hosts = {};  // empty: this one
  int exit_code = 0;
  std::string why = {};
  std::string then = {};                  // "done", "stopped", "gave up", "restarts"
  std::optional<int64_t> from_step = {};  // of the newest checkpoint when it began
  std::optional<int64_t> step = {};       // when it ended
};

std::string json_line(const Attempt& attempt);

/// The lines of one launch.
class AttemptLog {
 public:
  explicit AttemptLog(std::filesystem::path run_dir) : run_dir_(std::move(run_dir)) {}
  /// Adds a line. Where the job has not come so far that run_dir is there, it waits for the next.
  /// Returns why it could not be written; "" where it was, or waits.
  std::string add(const Attempt& attempt);

 private:
  std::filesystem::path run_dir_;
  std::string waiting_;
};

}  // namespace tptrain::launch
