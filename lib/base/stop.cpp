#include "base/stop.h"

#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>

namespace tptrain {

namespace {

constexpr std::array<int, 5> kSignals = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGHUP};
constexpr int kOtherRank = -1;

// A signal handler can reach nothing but static storage. 0: none yet; else the first one's number.
std::atomic<int> reason{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler writes it");

void on_signal(int number) {
  int none = 0;
  const bool first = reason.compare_exchange_strong(none, number);
  if (number != SIGINT || first) return;
  // Who presses Ctrl-C twice does not want to wait for a checkpoint.
  signal(SIGINT, SIG_DFL);
  raise(SIGINT);
}

sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : kSignals) sigaddset(&set, number);
  return set;
}

}  // namespace

void block_stop_signals() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

void unblock_stop_signals() {
  const sigset_t set = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void heed_stop_signals() {
  for (const int number : kSignals) {
    struct sigaction former = {};
    sigaction(number, nullptr, &former);
    if (number == SIGHUP && former.sa_handler == SIG_IGN) continue;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;  // file I/O and MPI under way go on
    sigaction(number, &action, nullptr);
  }
  unblock_stop_signals();
}

bool stop_requested() { return reason.load(std::memory_order_relaxed) != 0; }

void request_stop() {
  int none = 0;
  reason.compare_exchange_strong(none, kOtherRank);
}

std::string stop_reason() {
  switch (reason.load()) {
    case 0:
      return "";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    default:
      return "another rank was asked to stop";
  }
}

}  // namespace tptrain
