// What run_dir/log.txt tells beside the steps: each start with its host, devices and end, each save
// with its time, what was warned of, and the work that is under way. Written for lines as this
// program's log has them; others are passed over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::report {

struct Start {
  std::string program = {};  // "tptrain 0.1.0 (CPU), commit ..."
  std::string when = {};     // "2026-11-29 19:15:37 UTC"
  std::string command = {};
  std::string hosts = {};
  std::string devices = {};  // the line of the mesh, or of the GPUs
  std::string model = {};
  std::string data = {};
  int64_t from_step = 0;
  std::string end = {};  // its last words; "" where it has none: it was killed, or still runs
  bool done = false;     // it did all its steps
};

struct Save {
  int64_t step = 0;
  double seconds = 0;
  std::string when;  // "11-29 19:15:37"
};

struct LogFacts {
  std::vector<Start> starts;
  std::vector<Save> saves;
  int64_t warnings = 0;
  std::vector<std::string> last_warnings;  // with their time, the newest last; 50 at most
  /// "evaluating (25 %)", "building the model": what the last line says of work that takes its
  /// time, as base/work_display.h writes it every fifteen seconds; "" where the last line is
  /// another.
  std::string work;
};

/// `text`: the file's bytes, which may be anything; or its last ones, whose first start lacks then
/// what was cut off.
LogFacts read_log(std::string_view text);

}  // namespace tptrain::report
