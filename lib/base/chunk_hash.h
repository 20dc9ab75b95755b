// The hash of a file by chunks: SHA-256 of each 32 MiB of it, and the root, SHA-256 of those
// digests one after another (32 bytes each). Chunks are hashed beside one another, so that neither
// writing nor checking a file waits for one core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/files.h"

namespace tptrain {

inline constexpr int64_t kHashChunkBytes = int64_t{32} << 20;

/// Of bytes that come in any pieces. Holds at most two chunks more than it has threads.
class ChunkHasher {
 public:
  ChunkHasher();
  ~ChunkHasher();
  ChunkHasher(const ChunkHasher&) = delete;
  ChunkHasher& operator=(const ChunkHasher&) = delete;
  void update(const void* bytes, size_t count);
  /// 64 lower-case hex digits; the object is spent afterwards.
  std::string root();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Of a whole file, read by several threads.
std::string chunked_sha256_file(const std::filesystem::path& path,
                                FailAs fail_as = FailAs::checkpoint_error);

}  // namespace tptrain
