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

std::string append(const std::filesystem::path& run_dir, const Attempt& attempt) {
  std::error_code missing;
  if (!std::filesystem::is_directory(run_dir, missing)) return {};
  try {
    Descriptor file(run_dir / "attempts.jsonl", O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK,
                    FailAs::checkpoint_error);
    const std::string line = json_line(attempt);
    file.write_all(line.data(), line.size());
    file.close_checked();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace tptrain::launch
