// Hashes what is read of a checkpoint, chunk by chunk, before it is read the first time.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/shard_set.h"

namespace tptrain::checkpoint {

class ReadCheck {
 public:
  /// Both must outlive it.
  ReadCheck(const Manifest& manifest, const ShardSet& shards);
  /// The bytes [begin, end) of the file, and its header, are those the manifest names. Throws
  /// Refused. A reader that goes through a file front to back has what comes next hashed as well,
  /// on other cores. Any thread.
  void require(int64_t file, int64_t begin, int64_t end);

 private:
  struct State {
    std::vector<bool> sound;  // of its chunks
    int64_t ahead = 0;        // chunks to hash beyond what is asked for
  };
  void check(int64_t file, const std::vector<int64_t>& chunks);

  const Manifest& manifest_;
  const ShardSet& shards_;
  std::mutex mutex_;
  std::vector<State> files_;
};

}  // namespace tptrain::checkpoint
