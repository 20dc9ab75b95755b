// Removing old checkpoints, after a commit only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/save.h"

namespace tptrain::checkpoint {

struct RetentionOrder {
  std::filesystem::path directory;
  int64_t keep = 0;        // newest valid ones that stay, the one just written among them; 0: all
  int64_t keep_every = 0;  // beside them those of every so many steps; 0: none
  bool keep_best = false;  // and the best one (named_checkpoints.h)
  std::set<std::filesystem::path> damaged =
      {};  // found so by their contents: they neither count nor are removed
  const RunOwner* owner = nullptr;  // asked before each removal
  FaultPoint fault_point = {};
};

/// Removes the checkpoints of the run of `just_written` beyond its newest `keep` and those that
/// stay beside them (those of other runs neither count nor go), and what is left of deletions that
/// were cut short. On one rank alone. A checkpoint counts as valid by its manifest and its shards'
/// sizes (hashing gigabytes at every save would cost more than it finds); one that does not is left
/// for its user. Never removes `just_written`. Returns what could not be removed, one line each.
std::vector<std::string> apply_retention(const RetentionOrder& order,
                                         const CheckpointInfo& just_written);

/// How many whole checkpoints of that run retention would count, by the same rule.
int64_t count_own_checkpoints(const std::filesystem::path& directory, const RunIdentity& run);

}  // namespace tptrain::checkpoint
