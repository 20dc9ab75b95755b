// What others read of a rank, and whom they say is behind.
#include "base/rank_state.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/processes.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

RankState state_of(int rank, const char* host, int64_t collectives, int gpu = -1) {
  RankState state{.step = 57, .bytes = 67'100'000, .collectives = collectives};
  state.rank = rank;
  state.gpu = gpu;
  state.process = 4700 + rank;
  state.idle_ms = 6100;
  set_text(state.host, host);
  set_text(state.phase, "forward and backward");
  set_text(state.axis, "tp");
  set_text(state.call, "all_gather");
  return state;
}

}  // namespace

TEST_CASE("behind is a rank that does not run, whatever it has begun") {
  std::vector<RankState> ranks = {state_of(0, "a", 9), state_of(1, "a", 9, 1), state_of(2, "b", 8)};
  set_text(ranks[1].does_not_run, "is stopped (SIGSTOP)");
  CHECK(who_is_behind(ranks, 0, {"c (ranks 3, 4)"}) ==
        "behind is rank 1 on a (GPU 1), which has stood for 6.1 s at step 57, forward and "
        "backward, last collective \"tp: all_gather of 67.1 MB, number 9\": its process 4701 is "
        "stopped (SIGSTOP)");
  // One that has ended by its own watchdog waited as well.
  set_text(ranks[1].does_not_run, "is gone");
  ranks[1].ends_itself = 1;
  CHECK(who_is_behind(ranks, 0, {}).find("behind is rank 2 on b, which") == 0);
}

TEST_CASE("behind is a host that does not answer, else who has begun the fewest collectives") {
  std::vector<RankState> ranks = {state_of(0, "a", 9), state_of(1, "a", 8), state_of(2, "b", 9)};
  CHECK(who_is_behind(ranks, 0, {"c (ranks 3, 4)"}) == "no answer comes from host c (ranks 3, 4)");
  CHECK(who_is_behind(ranks, 0, {}).find("behind is rank 1 on a, which has stood") == 0);
  CHECK(who_is_behind(ranks, 1, {}) == "behind is this rank itself; rank 2 on b is at number 9");
  ranks[0] = state_of(0, "a", 8);
  CHECK(who_is_behind(ranks, 2, {}).find("behind are rank 0 on a, rank 1 on a; the first is") == 0);
  // Both wait in one collective, but one of them asks for nothing.
  ranks[1].computes_alone = 1;
  CHECK(who_is_behind(ranks, 2, {}) ==
        "behind is rank 1 on a, which has stood for 6.1 s at step 57, forward and backward, last "
        "collective \"tp: all_gather of 67.1 MB, number 8\": its process 4701 runs in a circle");
  ranks[0].computes_alone = 1;
  CHECK(who_is_behind(ranks, 2, {}).find("behind are rank 0 on a, rank 1 on a; the first is") == 0);
  ranks[0] = ranks[1] = state_of(0, "a", 9);
  CHECK(who_is_behind(ranks, 2, {}) ==
        "no rank is behind: all 3 have begun this collective, so look at their links and devices");
  ranks[1].computes_alone = 1;
  CHECK(who_is_behind(ranks, 2, {}).find("behind is rank 0 on a, which") == 0);
  ranks[1].computes_alone = 0;
  // A moment at the disk is no reason, where a rank has begun all that the others have.
  set_text(ranks[0].does_not_run, "waits for a disk or a network file system");
  CHECK(who_is_behind(ranks, 2, {}).find("no rank is behind") == 0);
  CHECK(who_is_behind({}, 0, {}).empty());
  CHECK(who_is_behind({ranks[1]}, 0, {}).empty());
}

TEST_CASE("what is read beside writes is never half of one and half of another") {
  SharedState shared;
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int64_t i = 1; !done; ++i) {
      RankState state{.step = i, .bytes = 2 * i, .collectives = 3 * i};
      shared.write(state);
    }
  });
  int64_t unlike = 0;
  for (int i = 0; i < 100000; ++i) {
    // The writer may lose its core in the middle of a write, for as long as others need it.
    const RankState seen = shared.read(/*within_ns=*/int64_t{60'000'000'000});
    if (seen.step > 0 && (seen.bytes != 2 * seen.step || seen.collectives != 3 * seen.step))
      ++unlike;
  }
  done = true;
  writer.join();
  CHECK(unlike == 0);
}

TEST_CASE("texts are cut where they do not fit") {
  RankState state;
  set_text(state.axis, "an axis of a very long name");
  CHECK(std::string(state.axis) == "an axis of a ve");
}

TEST_CASE("a process is found with its parent and what it does") {
  CHECK(process_status(getpid()).parent == getppid());
  CHECK(why_it_does_not_run(process_status(getpid())).empty());
  CHECK(process_status(0x7ffffff0).state == '?');
  const auto begin = std::chrono::steady_clock::now();
  const ProcessStatus before = process_status(getpid());
  while (process_status(getpid()).in_program < before.in_program + 2) {
    volatile int turns = 0;
    while (turns < 1000000) {
      const int next = turns + 1;
      turns = next;
    }
    REQUIRE(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
  }
  CHECK(rank_of_process(getpid()).empty());
}

}  // namespace tptrain::testing
