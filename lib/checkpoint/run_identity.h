// Which run a checkpoint, and the metrics.jsonl of a run_dir, belong to. A run begins once: at the
// first start of a run file in a run_dir. Later starts go on with it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.h"

namespace tptrain::checkpoint {

/// A run, as its checkpoints and run_dir/.run.json know it.
struct RunIdentity {
  std::string id;  // 32 hex digits, drawn when the run began; "": of a time when runs had none
  std::optional<config::Resume> begun_by;  // what checkpoint.resume said then; nothing likewise
  /// Save ids of the checkpoints that runs began at, from the first to the one this run began at;
  /// empty where it began with random values or a model's weights.
  std::vector<std::string> origins = {};
  std::string origin_path = {};  // the last of them, as an absolute path

  bool operator==(const RunIdentity&) const = default;
};

/// As canonical JSON text, and back. Throws Refused where it is no such text.
std::string identity_text(const RunIdentity& run);
RunIdentity parse_identity(std::string_view text);

/// run_dir/.run.json: the run that metrics.jsonl beside it is of. Nothing where there is none.
/// Throws CheckpointError where it cannot be read.
std::optional<RunIdentity> read_run_identity(const std::filesystem::path& run_dir);
/// Durably and at once.
void write_run_identity(const std::filesystem::path& run_dir, const RunIdentity& run);

}  // namespace tptrain::checkpoint
