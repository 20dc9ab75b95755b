// Signals that ask for a stop, and the points at which work is given up for one.
#include "base/stop.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "base/interruption.h"
#include "support/catch.h"

namespace tptrain {
namespace {

using namespace std::chrono_literals;

// Signals are this process's for ever: each case has a child of its own. 128 + signal where one
// ended it.
int exit_code_of(const std::function<int()>& work) {
  const pid_t child = fork();
  if (child == 0) _exit(work());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("each of the signals asks for a stop and ends nothing, as often as it comes") {
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGHUP}) {
    INFO(strsignal(number));
    CHECK(exit_code_of([number] {
            heed_stop_signals();
            if (stop_requested() || !stop_reason().empty()) return 1;
            raise(number);
            raise(number);
            raise(SIGTERM);  // as a launcher does to those who are on their way out
            if (!stop_requested()) return 2;
            return stop_reason() == std::string("SIG") + sigabbrev_np(number) ? 0 : 3;
          }) == 0);
  }
}

TEST_CASE("the second Ctrl-C ends the process") {
  CHECK(exit_code_of([] {
          heed_stop_signals();
          raise(SIGINT);
          if (stop_reason() != "SIGINT") return 1;
          raise(SIGINT);
          return 2;
        }) == 128 + SIGINT);
}

TEST_CASE("signals that came while they were blocked count") {
  CHECK(exit_code_of([] {
          block_stop_signals();
          raise(SIGUSR1);
          heed_stop_signals();
          return stop_reason() == "SIGUSR1" ? 0 : 1;
        }) == 0);
  CHECK(exit_code_of([] {
          block_stop_signals();
          raise(SIGUSR1);
          unblock_stop_signals();
          return 0;
        }) == 128 + SIGUSR1);
}

TEST_CASE("nohup's choice stands") {
  CHECK(exit_code_of([] {
          signal(SIGHUP, SIG_IGN);
          heed_stop_signals();
          raise(SIGHUP);
          return stop_requested() ? 1 : 0;
        }) == 0);
}

TEST_CASE("work is given up at its next point where its scope says so, and nowhere else") {
  CHECK(exit_code_of([] {
          request_stop();
          interruption_point();  // no scope
          int said = 0;
          const auto begin = std::chrono::steady_clock::now();
          {
            const WorkScope finish(OnStop::finish, [&] { ++said; });
            interruption_point();
            {
              const WorkScope give_up(OnStop::give_up, [] {});
              try {
                interruption_point();
                return 1;
              } catch (const StopRequested& stop) {
                if (stop.code() != ExitCode::stopped) return 2;
              }
            }
            interruption_point();
            std::thread([] { interruption_point(); }).join();  // a scope is its thread's
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            interruption_point();
            interruption_point();
          }
          // At most every 250 ms, of which a busy machine may make more.
          const auto quarters = (std::chrono::steady_clock::now() - begin) / 250ms;
          if (said < 1 || said > quarters) return 3;
          return interruption_points_passed() == 7 ? 0 : 4;
        }) == 0);
}

}  // namespace tptrain
