// All that a run directory tells of its run, for a report or a look at it: metrics.jsonl,
// resolved_config*.yaml, the manifests of its checkpoints and log.txt. Reads, never writes; what is
// missing or spoilt is left out and said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "report/log_file.h"
#include "report/metrics_file.h"

namespace tptrain::report {

using Settings = std::vector<std::pair<std::string, std::string>>;

struct SettingsOfStart {
  int64_t from_step = 0;
  Settings values;
};

struct StoredCheckpoint {
  std::string name = {};  // "step-00000100"
  int64_t step = 0;
  int64_t bytes = 0;  // of its files
  double time = 0;    // seconds since 1970 when the manifest was written
};

struct RunRecord {
  std::filesystem::path path;
  std::string name;  // for people: unlike those of the other runs
  Metrics metrics;
  LogFacts log;
  double log_time = 0;                   // seconds since 1970 when log.txt was written last
  Settings settings;                     // of the last start
  std::vector<SettingsOfStart> changed;  // by the step behind which each began, the last one too
  std::vector<StoredCheckpoint> checkpoints;  // that are there now, by step
  std::vector<std::string> problems;          // what could not be read

  /// The value of a setting; "" where the run has none of that name.
  std::string setting(const std::string& key) const;
  /// train.max_steps; 0 where it is not known.
  int64_t max_steps() const;
};

/// Reads all of it. Throws nothing of a file: see problems.
RunRecord read_run(const std::filesystem::path& run_dir);

/// A run that is looked at again and again while it goes on: each time only what is new is read.
class LiveRun {
 public:
  LiveRun(std::filesystem::path run_dir, std::string name);
  /// Takes in what is new. Of the log the end alone is read.
  void refresh();
  const RunRecord& record() const { return record_; }

 private:
  MetricsFile metrics_;
  RunRecord record_;
  int64_t log_bytes_ = -1;
};

/// The checkpoints of a run directory, by their manifests alone; what is no manifest is passed
/// over.
std::vector<StoredCheckpoint> stored_checkpoints(const std::filesystem::path& run_dir);

}  // namespace tptrain::report
