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
/// That the header of a shard holds exactly the pieces the manifest says. Throws Refused.
void check_shard_header(const std::filesystem::path& directory, const Manifest& manifest,
                        int64_t file);

/// A chunk of a shard; the whole of it, number 0, where the manifest has one hash for a file.
struct ShardChunk {
  int64_t file = 0;
  int64_t chunk = 0;
};
/// Of all shards, in order, the part of number `part` of `parts`: of about as many bytes as the
/// others.
std::vector<ShardChunk> share_of_chunks(const Manifest& manifest, int64_t part, int64_t parts);
int64_t bytes_of(const Manifest& manifest, const std::vector<ShardChunk>& chunks);
/// Sizes and SHA-256, read by several threads, and the headers of shards whose first chunk is among
/// them. Throws Refused, naming shard and chunk.
void check_chunks(const std::filesystem::path& directory, const Manifest& manifest,
                  const std::vector<ShardChunk>& chunks);
/// "SHA-256 of its chunk 3 of 7 is ...": why a chunk with this digest is refused; "" where it is
/// the one the manifest names.
std::string chunk_fault(const Manifest& manifest, const ShardChunk& chunk,
                        const std::string& actual);

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
