// run_dir/attempts.jsonl: one line for each time that the launcher started the job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
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

/// Adds the line. Where run_dir is not there, the job has not come so far that it is kept.
/// Returns why it could not be written; "" where it was, or need not be.
std::string append(const std::filesystem::path& run_dir, const Attempt& attempt);

}  // namespace tptrain::launch
