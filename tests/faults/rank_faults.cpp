// A rank that goes wrong when it is told to, for scripts/stop_trials.py: loaded before the program
// (LD_PRELOAD), it waits for signals that the program does not know. Sent to the main thread:
//   SIGRTMIN + 5   it runs in a circle for ever
//   SIGRTMIN + 6   it ends at once with exit code 0, as if all were done
// With RANK_FAULTS_AT_EXIT in its environment it has an exit handler that does not end.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

namespace {

void run_in_a_circle(int) {
  volatile unsigned long turns = 0;
  while (true) turns = turns + 1;
}

void end_as_if_done(int) { _exit(0); }

void hang() {
  while (true) pause();
}

__attribute__((constructor)) void wait_for_signals() {
  struct sigaction action = {};
  action.sa_handler = run_in_a_circle;
  sigaction(SIGRTMIN + 5, &action, nullptr);
  action.sa_handler = end_as_if_done;
  sigaction(SIGRTMIN + 6, &action, nullptr);
  if (getenv("RANK_FAULTS_AT_EXIT") != nullptr) atexit(hang);
}

}  // namespace
