// The parts of a verification, so that several ranks can share it: one manifest, each shard for
// itself, and the coverage of the tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/stop.h"
#include "checkpoint/manifest.h"

namespace tptrain::checkpoint {

/// Reads and checks manifest.json of `directory`. Throws Refused, also where there is none.
Manifest read_manifest(const std::filesystem::path& directory);
/// The text alone. Throws Refused where it is missing or unreadable.
std::string read_manifest_text(const std::filesystem::path& directory);
CheckpointInfo info_of(const Manifest& manifest, const std::filesystem::path& directory);

/// Presence and size. Throws Refused.
void check_shard_size(const std::filesystem::path& directory, const Manifest& manifest,
                      int64_t file);
/// Size, SHA-256, and that its header holds exactly the pieces the manifest says. Reads the whole
/// file. Throws Refused.
void check_shard(const std::filesystem::path& directory, const Manifest& manifest, int64_t file);

/// Runs `check`; returns "" or why it failed, on one line. Never throws for what a checkpoint
/// holds; StopRequested passes through.
template <typename Check>
std::string problem_of(Check&& check) {
  try {
    check();
    return {};
  } catch (const StopRequested&) {
    throw;  // nothing was found out
  } catch (const std::exception& e) {
    return plain_message(e);
  }
}

}  // namespace tptrain::checkpoint
