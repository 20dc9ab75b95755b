// The memory of the host in which a save that goes on beside the steps keeps its copy of the state.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/host.h"
#include "base/log.h"
#include "comm/control.h"
#include "train/engine.h"
#include "zero/state_snapshot.h"

namespace tptrain::train {

/// What a rank would take of its host, and what the host had left when it looked.
struct SnapshotMemory {
  std::string host;
  int64_t needed_bytes = 0;
  HostMemory left;
};
/// "" where every host has room for the copies of all its ranks, and a fifth of what is left stays
/// free; else the first that has not, with the bytes.
std::string lack_of_snapshot_memory(const std::vector<SnapshotMemory>& of_ranks);

/// Null where some host has too little memory, which the log of rank 0 says: on every rank alike.
/// `hosts` in rank order. Collective.
std::unique_ptr<zero::StateSnapshot> snapshot_for(comm::ControlGroup& group,
                                                  const std::vector<std::string>& hosts,
                                                  Engine& engine, Logger& log);

}  // namespace tptrain::train
