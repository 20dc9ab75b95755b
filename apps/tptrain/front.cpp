// What is started as `tptrain`: holds back the signals that ask for a stop and becomes the program
// itself, tptrain-program in the same folder. Loading LibTorch takes the program some tenths of a
// second before its main begins, and a signal in that time would end it instead of stopping it; a
// blocked signal waits through exec. Nothing else is done here, so that nothing else is loaded.
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <string>

#include "base/stop.h"

int main(int, char** argv) {
  tptrain::block_stop_signals();
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
