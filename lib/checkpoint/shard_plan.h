// What one rank writes of a save: its pieces in the order in which they lie in its shard, and the
// writing of it. Communicates nothing.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "checkpoint/manifest.h"
#include "formats/safetensors.h"
#include "sharding/state_dict.h"

namespace tptrain::checkpoint {

/// Called after each step of a save (save.h lists them).
using FaultPoint = std::function<void(std::string_view)>;

/// `pieces` and `sources` run in parallel.
struct ShardPlan {
  std::vector<ManifestPiece> pieces;
  std::vector<sharding::StatePiece> sources;
  std::vector<formats::SafetensorsEntry> entries;
};

/// Throws InternalError for a piece that is none. The bytes of a shard do not depend on the order
/// of the pieces in `state`.
ShardPlan plan_shard(const sharding::StateDict& state, int64_t file);

/// What write_shard() throws where it was told to end.
class GivenUp : public std::runtime_error {
 public:
  GivenUp() : std::runtime_error("the save was given up") {}
};

/// Any thread, where the sources are in host memory. Throws CheckpointError; GivenUp where
/// `given_up` became true meanwhile. `values_written`: bytes, for whoever watches.
DurableFile::Written write_shard(const std::filesystem::path& path, const ShardPlan& plan,
                                 const FaultPoint& fault_point, const std::atomic<bool>& given_up,
                                 std::atomic<int64_t>& values_written);

}  // namespace tptrain::checkpoint
