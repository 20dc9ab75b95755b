#include "train/health.h"

#include <ATen/ATen.h>

#include <cstring>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {
namespace {

struct Entry {
  int64_t begin = 0;
  uint64_t hash = 0;
};

std::string bytes_of(const std::vector<zero::ShardedState::SliceHash>& hashes) {
  std::string bytes;
  for (const auto& slice : hashes) {
    const Entry entry{.begin = slice.begin, .hash = slice.hash};
    bytes.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
  }
  return bytes;
}

std::string ranks_text(const std::vector<int>& ranks) {
  return cat(ranks.size() == 1 ? "rank " : "ranks ", join(ranks));
}

// The values of one slice, by the ranks that hold them, where they differ: "ranks 0, 2 and rank 1".
std::string parting(const std::map<uint64_t, std::vector<int>>& holders) {
  std::vector<std::string> groups;
  for (const auto& [hash, ranks] : holders) groups.push_back(ranks_text(ranks));
  return join(groups, " against ");
}

}  // namespace

void audit_parameters(zero::ShardedState& state, comm::ControlGroup& world, int64_t step) {
  const std::vector<zero::ShardedState::SliceHash> own = state.hash_parameters();
  const std::vector<std::string> all = world.all_gather(bytes_of(own));
  std::vector<Problem> problems;
  for (size_t i = 0; i < own.size(); ++i) {
    std::map<int64_t, std::map<uint64_t, std::vector<int>>> slices;  // begin -> value -> ranks
    for (size_t rank = 0; rank < all.size(); ++rank) {
      Entry entry;
      std::memcpy(&entry, all[rank].data() + i * sizeof(Entry), sizeof(Entry));
      slices[entry.begin][entry.hash].push_back(static_cast<int>(rank));
    }
    for (const auto& [begin, holders] : slices) {
      if (holders.size() == 1) continue;
      problems.push_back(
          problem(cat("the copies of '", own[i].name, "' have drifted apart: ", parting(holders),
                      " hold different values"))
              .at(cat("before step ", step))
              .must("be bitwise the same on every rank that holds them")
              .remedy("Memory or an interconnect of one of these ranks is at fault, or its program "
                      "is another build: look at them, then go on from the last checkpoint."));
    }
  }
  if (problems.empty()) return;
  NumericsError error(problems);
  error.set_agreed();  // every rank has compared the same hashes
  throw error;
}

std::string describe_nonfinite(const zero::ParamBuckets& buckets, const zero::StepNumbers& numbers,
                               comm::ControlGroup& world) {
  const auto culprit = numbers.culprit.item<int64_t>();
  std::string own;
  if (culprit >= 0) own = cat("the gradient of '", buckets.parameter_name(culprit), "'");
  if (culprit == -2) own = "its loss";
  std::vector<std::string> found;
  const std::vector<std::string> all = world.all_gather(own);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (!all[rank].empty()) found.push_back(cat("rank ", rank, ": ", all[rank]));
  }
  return found.empty() ? "the sum over the ranks" : join(found, "; ");
}

}  // namespace tptrain::train
