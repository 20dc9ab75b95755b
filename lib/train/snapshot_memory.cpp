#include "train/snapshot_memory.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {
namespace {

std::vector<SnapshotMemory> memory_of_ranks(comm::ControlGroup& group,
                                            const std::vector<std::string>& hosts,
                                            int64_t needed_bytes) {
  std::vector<SnapshotMemory> of_ranks;
  const HostMemory left = available_host_memory();
  for (const std::string& text :
       group.all_gather(cat(needed_bytes, " ", left.available_bytes, " ", left.limited))) {
    SnapshotMemory& rank = of_ranks.emplace_back();
    rank.host = hosts.at(of_ranks.size() - 1);
    std::istringstream(text) >> rank.needed_bytes >> rank.left.available_bytes >> rank.left.limited;
  }
  return of_ranks;
}

/// The first rank's that is not "".
std::string first_of(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return {};
}

}  // namespace

std::string lack_of_snapshot_memory(const std::vector<SnapshotMemory>& of_ranks) {
  std::map<std::string, SnapshotMemory> of_hosts;
  for (const SnapshotMemory& rank : of_ranks) {
    auto [host, is_new] = of_hosts.try_emplace(rank.host, rank);
    if (is_new) continue;
    host->second.needed_bytes += rank.needed_bytes;
    if (rank.left.available_bytes < host->second.left.available_bytes)
      host->second.left = rank.left;
  }
  for (const auto& [name, host] : of_hosts) {
    if (host.needed_bytes <= host.left.available_bytes / 5 * 4) continue;
    return cat("a copy of the state takes ", human_bytes(host.needed_bytes), " of ", name,
               "'s memory, of which ", human_bytes(host.left.available_bytes), " are available",
               host.left.limited ? " within the limit of this job or container" : "");
  }
  return {};
}

std::unique_ptr<zero::StateSnapshot> snapshot_for(comm::ControlGroup& group,
                                                  const std::vector<std::string>& hosts,
                                                  Engine& engine, Logger& log) {
  const sharding::StateDict state = engine.state().state_dict();
  std::unique_ptr<zero::StateSnapshot> snapshot;
  std::string lack =
      lack_of_snapshot_memory(memory_of_ranks(group, hosts, zero::StateSnapshot::bytes_of(state)));
  if (lack.empty()) {
    std::string own;
    try {
      snapshot = std::make_unique<zero::StateSnapshot>(state, engine.device());
    } catch (const Error& error) {
      own = error.what();
    }
    lack = first_of(group.all_gather(own));
  }
  if (lack.empty()) return snapshot;
  if (group.rank() == 0)
    log.warn(cat("checkpoint.async: training waits while a checkpoint is written: ", lack));
  return nullptr;
}

}  // namespace tptrain::train
