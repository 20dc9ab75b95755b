// What is started as `tptrain`: holds back the signals that ask for a stop and becomes the program
// itself, tptrain-program in the same folder. Loading LibTorch takes the program some tenths of a
// second before its main begins, and a signal in that time would end it instead of stopping it; a
// blocked signal waits through exec. What LibTorch's libraries read of the environment as they are
// loaded is set here as well. Nothing else is done here, so that nothing else is loaded.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>

#include "base/stop.h"

namespace {

/// The compute threads of a process meet after every operation. LibTorch's OpenMP lets those that
/// wait spin 300,000 times before they sleep: where other processes share the cores they spin in
/// the place of the thread that they wait for. Measured on two cores with two threads a process
/// (evaluating 200 rows of up to 24 tokens, seconds):
///   spins                  300,000   100,000   10,000    1,000
///   alone                  0.23      0.23      0.24      0.25
///   three of them at once  2 to 43   2 to 37   1 to 8    1.2 to 2.2
/// Training of configs/quickstart.yaml by one process is as fast with either, and ranks that have
/// one core each have one thread. What the user has set is left as it is.
void shorten_spinning() {
  if (getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "1000", /*overwrite=*/0);
}

}  // namespace

int main(int, char** argv) {
  tptrain::block_stop_signals();
  shorten_spinning();
  char path[PATH_MAX] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) {
    perror("tptrain: /proc/self/exe");
    return static_cast<int>(tptrain::ExitCode::internal);
  }
  const std::string program = std::string(path) + "-program";
  execv(program.c_str(), argv);
  perror(("tptrain: " + program).c_str());
  return static_cast<int>(tptrain::ExitCode::internal);
}
