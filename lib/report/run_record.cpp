#include "report/run_record.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "config/flat_values.h"
#include "report/shown_line.h"

namespace tptrain::report {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSettingsFile = "resolved_config.yaml";
constexpr int64_t kMostOfALog = int64_t{512} << 20;
constexpr int64_t kMostOfSettings = int64_t{4} << 20;

std::optional<int64_t> whole_number(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Settings read_settings(const fs::path& path) {
  Settings values = config::flat_values(read_file(path, kMostOfSettings, FailAs::data_error),
                                        path.filename().string());
  for (auto& [key, value] : values) {
    key = shown_line(key);
    value = shown_line(value);
  }
  return values;
}

/// The names in a folder; none where it cannot be read.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const fs::path& path : entries_if_readable(folder))
    names.push_back(path.filename().string());
  return names;
}

// resolved_config.<step>.yaml, and .<step>.2.yaml of a second start there.
void read_changes(RunRecord& run) {
  constexpr std::string_view kBegin = "resolved_config.", kEnd = ".yaml";
  for (const std::string& name : names_in(run.path)) {
    if (!name.starts_with(kBegin) || !name.ends_with(kEnd) || name.size() <= kBegin.size() + 4)
      continue;
    const std::string_view between =
        std::string_view(name).substr(kBegin.size(), name.size() - kBegin.size() - kEnd.size());
    const std::optional<int64_t> step = whole_number(between.substr(0, between.find('.')));
    if (!step) continue;
    try {
      run.changed.push_back({*step, read_settings(run.path / name)});
    } catch (const Error& error) {
      run.problems.push_back(error.what());
    }
  }
  std::stable_sort(run.changed.begin(), run.changed.end(),
                   [](const auto& a, const auto& b) { return a.from_step < b.from_step; });
}

template <typename Read>
void try_to(RunRecord& run, const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    run.problems.push_back(shown_line(error.what()));
  }
}

// Sizes of the files and the step: what a list of checkpoints shows. Whether its content is whole
// is `tptrain verify`'s to say.
std::optional<StoredCheckpoint> stored_checkpoint(const fs::path& directory) {
  const fs::path path = directory / "manifest.json";
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return std::nullopt;
  StoredCheckpoint found{.name = shown_line(directory.filename().string()),
                         .time = static_cast<double>(facts.st_mtime)};
  std::error_code failed;
  for (const std::string& name : names_in(directory)) {
    const auto size = fs::file_size(directory / name, failed);
    if (!failed && name != "manifest.json") found.bytes += static_cast<int64_t>(size);
  }
  const size_t digits = found.name.find_first_of("0123456789");
  const std::string_view number = digits == std::string::npos
                                      ? std::string_view()
                                      : std::string_view(found.name).substr(digits);
  const std::optional<int64_t> step = whole_number(number.substr(0, number.find('.')));
  if (!step) return std::nullopt;
  found.step = *step;
  return found;
}

}  // namespace

std::string RunRecord::setting(const std::string& key) const {
  for (const auto& [name, value] : settings) {
    if (name == key) return value;
  }
  return "";
}

int64_t RunRecord::max_steps() const {
  return whole_number(setting("train.max_steps")).value_or(0);
}

std::vector<StoredCheckpoint> stored_checkpoints(const fs::path& run_dir) {
  std::vector<StoredCheckpoint> found;
  const fs::path folder = run_dir / "checkpoints";
  for (const std::string& name : names_in(folder)) {
    if (!name.starts_with("step-")) continue;
    if (auto checkpoint = stored_checkpoint(folder / name)) found.push_back(std::move(*checkpoint));
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

RunRecord read_run(const fs::path& run_dir) {
  RunRecord run;
  run.path = run_dir;
  try_to(run, [&] {
    MetricsFile file(run_dir / "metrics.jsonl");
    file.read_more();
    run.metrics = file.metrics();
  });
  if (run.metrics.foreign_lines > 0)
    run.problems.push_back(
        cat("metrics.jsonl: ", run.metrics.foreign_lines, " lines are no records of a run"));
  std::error_code failed;
  if (fs::exists(run_dir / "log.txt", failed)) {
    try_to(run, [&] {
      run.log = read_log(read_file(run_dir / "log.txt", kMostOfALog, FailAs::data_error));
    });
  }
  if (fs::exists(run_dir / kSettingsFile, failed))
    try_to(run, [&] { run.settings = read_settings(run_dir / kSettingsFile); });
  read_changes(run);
  run.checkpoints = stored_checkpoints(run_dir);
  return run;
}

LiveRun::LiveRun(fs::path run_dir, std::string name) : metrics_(run_dir / "metrics.jsonl") {
  record_.path = std::move(run_dir);
  record_.name = std::move(name);
}

void LiveRun::refresh() {
  constexpr int64_t kTail = int64_t{256} << 10;
  record_.problems.clear();
  try_to(record_, [&] {
    if (metrics_.read_more()) record_.metrics = metrics_.metrics();
  });
  std::error_code failed;
  const auto size = fs::file_size(record_.path / "log.txt", failed);
  if (!failed && static_cast<int64_t>(size) != log_bytes_) {
    log_bytes_ = static_cast<int64_t>(size);
    std::ifstream file(record_.path / "log.txt", std::ios::binary);
    file.seekg(std::max<int64_t>(0, log_bytes_ - kTail));
    record_.log = read_log(std::string(std::istreambuf_iterator<char>(file), {}));
    if (fs::exists(record_.path / kSettingsFile, failed))  // there with the first step
      try_to(record_, [&] { record_.settings = read_settings(record_.path / kSettingsFile); });
  }
  struct stat facts {};
  if (::stat((record_.path / "log.txt").c_str(), &facts) == 0)
    record_.log_time = static_cast<double>(facts.st_mtime);
  record_.checkpoints = stored_checkpoints(record_.path);
}

}  // namespace tptrain::report
