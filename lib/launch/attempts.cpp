#include "launch/attempts.h"

#include <fcntl.h>

#include <nlohmann/json.hpp>
#include <system_error>

#include "base/descriptor.h"
#include "base/error.h"

namespace tptrain::launch {

std::string json_line(const Attempt& attempt) {
  nlohmann::ordered_json line = {{"attempt", attempt.number},
                                 {"began", attempt.began},
                                 {"ended", attempt.ended},
                                 {"ranks", attempt.ranks}};
  if (!attempt.hosts.empty()) line["hosts"] = text_of(attempt.hosts);
  line["exit_code"] = attempt.exit_code;
  line["why"] = attempt.why;
  line["then"] = attempt.then;
  if (attempt.from_step) line["from_step"] = *attempt.from_step;
  if (attempt.step) line["checkpoint_step"] = *attempt.step;
  return line.dump() + "\n";
}

std::string AttemptLog::add(const Attempt& attempt) {
  waiting_ += json_line(attempt);
  std::error_code missing;
  if (!std::filesystem::is_directory(run_dir_, missing)) return {};
  const std::string lines = std::exchange(waiting_, {});
  try {
    Descriptor file(run_dir_ / "attempts.jsonl", O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK,
                    FailAs::checkpoint_error);
    file.write_all(lines.data(), lines.size());
    file.close_checked();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace tptrain::launch
