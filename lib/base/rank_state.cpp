#include "base/rank_state.h"

#include <time.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/progress_board.h"
#include "base/text.h"

namespace tptrain {

namespace {

constexpr size_t kMostNamed = 4;

std::string where_it_stands(const RankState& state, bool alone = false) {
  const std::string stands =
      cat(name_of(state), ", which has stood for ",
          fixed(static_cast<double>(state.idle_ms) / 1000, 1), " s at ", doing_of(state));
  if (alone) return cat(stands, ": its process ", state.process, " runs in a circle");
  if (state.does_not_run[0] == '\0') return stands;
  return cat(stands, ": its process ", state.process, " ", state.does_not_run);
}

// Of more than a few the numbers say enough.
std::string where_they_stand(const std::vector<RankState>& ranks, bool alone = false) {
  if (ranks.size() == 1) return cat("behind is ", where_it_stands(ranks[0], alone));
  std::vector<std::string> names;
  for (const RankState& state : ranks) {
    if (names.size() == kMostNamed) break;
    names.push_back(name_of(state));
  }
  const size_t more = ranks.size() - names.size();
  return cat("behind are ", join(names), more > 0 ? cat(" and ", more, " more") : std::string(),
             "; the first is ", where_it_stands(ranks[0]));
}

}  // namespace

int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

void SharedState::write(const RankState& state) {
  uint64_t words[kWords];
  std::memcpy(words, &state, sizeof state);
  const uint64_t version = version_.load(std::memory_order_relaxed);
  version_.store(version + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  for (size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_relaxed);
  version_.store(version + 2, std::memory_order_release);
}

RankState SharedState::read(int64_t within_ns) const {
  uint64_t words[kWords];
  for (const int64_t begin = monotonic_ns();;) {
    const uint64_t before = version_.load(std::memory_order_acquire);
    for (size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 == 0 && version_.load(std::memory_order_relaxed) == before) break;
    if (monotonic_ns() - begin > within_ns) break;
  }
  RankState state;
  std::memcpy(&state, words, sizeof state);
  // Whatever was read in the middle of a write, or came from another host, ends.
  state.host[sizeof state.host - 1] = state.phase[sizeof state.phase - 1] = '\0';
  state.axis[sizeof state.axis - 1] = state.call[sizeof state.call - 1] = '\0';
  return state;
}

std::string name_of(const RankState& state) {
  std::string name = cat("rank ", state.rank, " on ", state.host);
  if (state.gpu >= 0) name += cat(" (GPU ", state.gpu, ")");
  return name;
}

std::string doing_of(const RankState& state) {
  return describe({.phase = state.phase,
                   .step = state.step,
                   .axis = state.axis,
                   .call = state.call,
                   .bytes = state.bytes,
                   .collectives = state.collectives});
}

std::string who_is_behind(const std::vector<RankState>& ranks, int own_rank,
                          const std::vector<std::string>& silent_hosts) {
  if (ranks.empty()) return {};
  const auto [least, most] = std::minmax_element(
      ranks.begin(), ranks.end(),
      [](const RankState& a, const RankState& b) { return a.collectives < b.collectives; });
  std::vector<RankState> not_running;
  for (const RankState& state : ranks) {
    // One that waits for its disk for a moment, and is where all are, is not the one.
    const bool for_disk = std::string_view(state.does_not_run).starts_with("waits");
    if (state.does_not_run[0] == '\0' || state.ends_itself != 0) continue;
    if (!for_disk || state.collectives < most->collectives) not_running.push_back(state);
  }
  if (!not_running.empty()) return where_they_stand(not_running);
  if (!silent_hosts.empty()) return cat("no answer comes from host ", join(silent_hosts, ", "));
  if (ranks.size() < 2) return {};
  std::vector<RankState> behind;
  std::vector<RankState> alone;
  for (const RankState& state : ranks) {
    if (state.collectives != least->collectives) continue;
    behind.push_back(state);
    if (state.computes_alone != 0) alone.push_back(state);
  }
  if (alone.size() == 1 && behind.size() > 1) return where_they_stand(alone, true);
  if (least->collectives == most->collectives)
    return cat("no rank is behind: all ", ranks.size(),
               " have begun this collective, so look at their links and devices");
  if (behind.size() == 1 && behind[0].rank == own_rank)
    return cat("behind is this rank itself; ", name_of(*most), " is at number ", most->collectives);
  return where_they_stand(behind);
}

}  // namespace tptrain
