// A rank that goes wrong when it is told to, for scripts/stop_trials.py: loaded before the program
// (LD_PRELOAD), it waits for signals that the program does not know. Sent to the main thread:
//   SIGRTMIN + 5   it runs in a circle for ever
//   SIGRTMIN + 6   it ends at once with exit code 0, as if all were done
#include <signal.h>
#include <unistd.h>

namespace {

void run_in_a_circle(int) {
  volatile unsigned long turns = 0;
  while (true) turns = turns + 1;
}

void end_as_if_done(int) { _exit(0); }

__attribute__((constructor)) void wait_for_signals() {
  struct sigaction action = {};
  action.sa_handler = run_in_a_circle;
  sigaction(SIGRTMIN + 5, &action, nullptr);
  action.sa_handler = end_as_if_done;
  sigaction(SIGRTMIN + 6, &action, nullptr);
}

}  // namespace
