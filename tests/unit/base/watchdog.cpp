// The progress board and the watchdog: what counts as progress, when the process is ended, and what
// is said then.
#include "base/watchdog.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/interruption.h"
#include "base/progress_board.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

using namespace std::chrono_literals;
using Time = StallClock::Time;

// A child that runs `work` under a watchdog; its exit code and what it wrote to standard error.
struct Ended {
  int exit_code = -1;  // 128 + signal where a signal ended it
  std::string error;
  std::chrono::steady_clock::duration lasted = {};
};
template <typename Work>
Ended run_child(const Work& work) {
  const testing::TempDir directory;
  const std::string file = (directory.path() / "stderr").string();
  const auto begin = std::chrono::steady_clock::now();
  std::fflush(nullptr);  // nothing buffered for the child to write a second time
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen(file.c_str(), "w", stderr) == nullptr) _exit(100);
    work();
    _exit(0);
  }
  Ended ended;
  int status = 0;
  waitpid(child, &status, 0);
  ended.lasted = std::chrono::steady_clock::now() - begin;
  ended.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  ended.error = text.str();
  return ended;
}

}  // namespace

TEST_CASE("the board says the phase, the step and the last collective") {
  ProgressBoard board;
  CHECK(describe(board.read()) == "before the first phase, no collective yet");
  board.enter("preparing the batch", 57);
  CHECK(describe(board.read()) == "step 57, preparing the batch, no collective yet");
  board.collective("tp", "reduce_scatter", 512);
  board.collective("tp", "all_gather", 67'108'864);
  board.enter("forward and backward", 57);
  CHECK(describe(board.read()) ==
        "step 57, forward and backward, last collective \"tp: all_gather of 67.1 MB, number 2\"");
  board.collective("an axis with a long name", "broadcast", 999);
  board.enter("evaluation");
  CHECK(describe(board.read()) ==
        "evaluation, last collective \"an axis with a : broadcast of 999 B, number 3\"");
}

TEST_CASE("every write is progress") {
  ProgressBoard board;
  uint64_t writes = board.read().writes;
  const auto wrote = [&] {
    const uint64_t before = std::exchange(writes, board.read().writes);
    return writes != before;
  };
  CHECK_FALSE(wrote());
  board.enter("start");
  CHECK(wrote());
  board.enter("start");
  CHECK(wrote());
  board.collective("tp", "all_reduce", 4);
  CHECK(wrote());
  board.advance();
  CHECK(wrote());
  CHECK_FALSE(wrote());
}

TEST_CASE("a stall is time without a write") {
  ProgressBoard board;
  StallClock clock(10s, 1s);
  Time now{};
  const auto look_for = [&](int seconds) {
    bool stalled = false;
    for (int i = 0; i < seconds; ++i) stalled = clock.look(board.read(), now += 1s).has_value();
    return stalled;
  };
  board.enter("training", 1);
  CHECK_FALSE(look_for(10));  // the first look starts the clock
  CHECK(look_for(1));
  CHECK(clock.look(board.read(), now += 1s) == StallClock::Span(11s));
  board.advance();
  CHECK_FALSE(look_for(10));
  CHECK(look_for(1));
  for (int i = 0; i < 100; ++i) {  // slow, but never for 10 s without a write
    board.collective("dp", "all_gather", 4);
    CHECK_FALSE(look_for(9));
  }
}

TEST_CASE("a phase may be given more time, and the next starts anew") {
  ProgressBoard board;
  StallClock clock(10s, 1s);
  Time now{};
  const auto seconds_until_stall = [&](int most) {
    for (int i = 0; i < most; ++i) {
      if (clock.look(board.read(), now += 1s)) return i;
    }
    return most;
  };
  board.enter("forward and backward", 100, 2.5);
  CHECK(seconds_until_stall(1000) == 25);
  board.enter("training", 101);
  CHECK(seconds_until_stall(1000) == 10);
}

TEST_CASE("time in which the process was stopped does not count") {
  ProgressBoard board;
  StallClock clock(10s, 1s);
  Time now{};
  board.enter("training", 1);
  CHECK_FALSE(clock.look(board.read(), now));
  CHECK_FALSE(clock.look(board.read(), now += 1h));  // SIGSTOP, SIGCONT: two looks' worth
  for (int i = 0; i < 7; ++i) CHECK_FALSE(clock.look(board.read(), now += 1s));
  CHECK(clock.look(board.read(), now += 1s));
}

TEST_CASE("the message has the rank, the step, the phase, the collective and what to look at") {
  ProgressBoard board;
  board.enter("waiting for its numbers", 57);
  board.collective("tp", "all_gather", 67'100'000);
  CHECK(stall_message(board.read(), {.rank = 3}, 600s) ==
        "[rank 3] communication error: no progress for 600 s: step 57, waiting for its numbers, "
        "last collective \"tp: all_gather of 67.1 MB, number 1\".\n"
        "  Compare this line of all ranks: one that is missing, or stands at another step or "
        "collective, is the one the others wait for. Where a step takes that long, raise "
        "train.hang_timeout_s; 0 switches this off.");
  CHECK(stall_message(board.read(), {}, 3040ms).find("no progress for 3.0 s: ") !=
        std::string::npos);
  CHECK(stall_message(board.read(),
                      {.rank = 3, .place = " on a (GPU 3)", .behind = "behind is rank 1 on b"},
                      600s) ==
        "[rank 3] communication error: no progress for 600 s on a (GPU 3): step 57, waiting for "
        "its numbers, last collective \"tp: all_gather of 67.1 MB, number 1\"; behind is rank 1 on "
        "b.\n  Look there first: the process, its GPU, the kernel's log of its host. Where a step "
        "takes that long, raise train.hang_timeout_s; 0 switches this off.");
  CHECK(stall_message(board.read(),
                      {.behind = "behind is rank 1 on b", .transport = "NCCL says of dp: no error"},
                      600s)
            .find("; behind is rank 1 on b; NCCL says of dp: no error.\n") != std::string::npos);
}

TEST_CASE(
    "a process without progress ends with code 6, its message on standard error and the log") {
  const testing::TempDir directory;
  const std::string log = (directory.path() / "log").string();
  const Ended ended = run_child([&] {
    ProgressBoard board;
    std::atexit([] { std::fputs("exit handlers ran\n", stderr); });
    const Watchdog watchdog(board, {.limit = 300ms, .rank = 2, .also_say = [&](const auto& line) {
                                      std::ofstream(log) << line;
                                    }});
    board.enter("training", 8);
    for (;;) pause();  // as in a driver call that never returns
  });
  INFO(ended.error);
  CHECK(ended.exit_code == static_cast<int>(ExitCode::communication));
  CHECK(ended.error.starts_with("[rank 2] communication error: no progress for 0."));
  CHECK(ended.error.find("step 8, training, no collective yet") != std::string::npos);
  CHECK(ended.error.find("exit handlers ran") == std::string::npos);
  CHECK(ended.lasted < 60s);
  std::ostringstream logged;
  logged << std::ifstream(log).rdbuf();
  CHECK(logged.str() + "\n" == ended.error);
}

TEST_CASE("a stopped process of the same parent and program is named") {
  const pid_t stopped = fork();
  if (stopped == 0) {
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0;
  waitpid(stopped, &status, WUNTRACED);
  const Ended ended = run_child([] {
    ProgressBoard board;
    const Watchdog watchdog(board, {.limit = 100ms, .rank = 1});
    for (;;) pause();
  });
  kill(stopped, SIGKILL);
  waitpid(stopped, &status, 0);
  INFO(ended.error);
  CHECK(ended.error.find("\n  On this host (process " + std::to_string(stopped) +
                         ") is stopped (SIGSTOP).\n") != std::string::npos);
}

TEST_CASE("a process whose end hangs after an error says that error and ends with its code") {
  const Ended ended = run_child([] {
    ProgressBoard board;
    const Watchdog watchdog(board, {.limit = 100ms, .rank = 1});
    board.enter("evaluation", 3, 1e9);
    board.fail(ExitCode::data, "data error: the text of rank 1 is spoilt.");
    for (;;) pause();
  });
  INFO(ended.error);
  CHECK(ended.exit_code == static_cast<int>(ExitCode::data));
  CHECK(ended.error.starts_with("[rank 1] data error: the text of rank 1 is spoilt.\n  (Its end"));
}

TEST_CASE("a log that hangs keeps no process alive") {
  const Ended ended = run_child([] {
    ProgressBoard board;
    const Watchdog watchdog(board, {.limit = 100ms, .also_say = [](const auto&) {
                                      for (;;) pause();
                                    }});
    for (;;) pause();
  });
  CHECK(ended.exit_code == static_cast<int>(ExitCode::communication));
  CHECK(ended.error.find("no progress") != std::string::npos);
  CHECK(ended.lasted < 60s);
}

TEST_CASE("long work that passes interruption points is left alone, and work that stops is not") {
  const Ended ended = run_child([] {
    ProgressBoard board;
    const Watchdog watchdog(board, {.limit = 1s, .rank = 0});
    board.enter("reading", -1);
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < 3s) {
      interruption_point();
      std::this_thread::sleep_for(20ms);
    }
    std::fputs("read\n", stderr);
    std::fflush(stderr);
    for (;;) pause();
  });
  INFO(ended.error);
  CHECK(ended.exit_code == static_cast<int>(ExitCode::communication));
  CHECK(ended.error.starts_with("read\n"));
}

TEST_CASE("the time is set anew while it is watched, and 0 switches it off") {
  const Ended ended = run_child([] {
    ProgressBoard board;
    Watchdog watchdog(board, {.limit = 0s, .rank = 1});
    std::this_thread::sleep_for(300ms);
    watchdog.set({.limit = 1h, .rank = 1});
    std::this_thread::sleep_for(300ms);
    watchdog.set({.limit = 200ms, .rank = 1});
    for (;;) pause();
  });
  INFO(ended.error);
  CHECK(ended.exit_code == static_cast<int>(ExitCode::communication));
  CHECK(ended.lasted > 700ms);
  CHECK(ended.lasted < 60s);  // not an hour
}

TEST_CASE("a process with progress is left alone") {
  const Ended ended = run_child([] {
    ProgressBoard board;
    const auto limit = std::chrono::seconds(2);
    const Watchdog watchdog(board, {.limit = limit});
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < 2 * limit) {
      board.collective("dp", "all_reduce", 4);
      std::this_thread::sleep_for(20ms);
    }
    _exit(42);
  });
  INFO(ended.error);
  CHECK(ended.exit_code == 42);
}

TEST_CASE("a watchdog ends in no time, though it looks but once a second") {
  ProgressBoard board;
  auto fastest = std::chrono::steady_clock::duration::max();  // of some: the machine may be busy
  for (int i = 0; i < 10; ++i) {
    auto watchdog = std::make_unique<Watchdog>(board, Watchdog::Options{.limit = 1h});
    const auto begin = std::chrono::steady_clock::now();
    watchdog.reset();
    fastest = std::min(fastest, std::chrono::steady_clock::now() - begin);
  }
  CHECK(fastest < 300ms);
}

}  // namespace tptrain
