// The hash of a file by chunks: SHA-256 of each 32 MiB of it, and the root, SHA-256 of those
// digests one after another (32 bytes each). Chunks are hashed beside one another, so that neither
// writing nor checking a file waits for one core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"

namespace tptrain {

inline constexpr int64_t kHashChunkBytes = int64_t{32} << 20;

constexpr int64_t hash_chunks_of(int64_t size_bytes) {
  return size_bytes / kHashChunkBytes + (size_bytes % kHashChunkBytes > 0 ? 1 : 0);  // of any size
}

/// Of bytes that come in any pieces. Holds two chunks more than it has threads, at most.
class ChunkHasher {
 public:
  /// Gets each chunk as well, in their order, one at a time, on a thread of its own; its memory
  /// begins at a multiple of 4096 bytes. What it throws update() or digests() throws.
  using Sink = std::function<void(std::span<const char>)>;
  explicit ChunkHasher(Sink sink = {});
  ~ChunkHasher();
  ChunkHasher(const ChunkHasher&) = delete;
  ChunkHasher& operator=(const ChunkHasher&) = delete;
  void update(const void* bytes, size_t count);
  /// Of each chunk, 64 lower-case hex digits, when all have been through; the object is spent
  /// afterwards.
  std::vector<std::string> digests();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Over digests as above; 64 hex digits.
std::string chunk_root(const std::vector<std::string>& digests);

/// How many threads read and hash at once, where there is as much to read.
int reading_threads();
/// The root of a whole file, read by them.
std::string chunked_sha256_file(const std::filesystem::path& path,
                                FailAs fail_as = FailAs::checkpoint_error);

}  // namespace tptrain
