#include "train/snapshot_memory.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/host.h"
#include "base/text.h"

namespace tptrain::train {
namespace {

std::vector<SnapshotMemory> memory_of_ranks(comm::ControlGroup& group,
                                            const std::vector<std::string>& hosts,
                                            int64_t needed_bytes) {
  std::vector<SnapshotMemory> of_ranks;
  for (const std::string& text :
       group.all_gather(cat(needed_bytes, " ", available_host_memory_bytes()))) {
    const size_t space = text.find(' ');
    of_ranks.push_back({.host = hosts.at(of_ranks.size()),
                        .needed_bytes = std::stoll(text.substr(0, space)),
                        .available_bytes = std::stoll(text.substr(space + 1))});
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
    host->second.available_bytes = std::min(host->second.available_bytes, rank.available_bytes);
  }
  for (const auto& [name, host] : of_hosts) {
    if (host.needed_bytes <= host.available_bytes / 5 * 4) continue;
    return cat("a copy of the state takes ", human_bytes(host.needed_bytes), " of ", name,
               "'s memory, of which ", human_bytes(host.available_bytes), " are available");
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
