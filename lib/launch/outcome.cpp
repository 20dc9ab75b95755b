#include "launch/outcome.h"

#include <signal.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::launch {
namespace {

constexpr int kBySignal = 128;

std::string signal_name(int number) {
  const char* name = sigabbrev_np(number);
  return name != nullptr ? cat("SIG", name) : cat("signal ", number);
}

std::string crash_text(int code, bool hung) {
  if (hung) return "its ranks ended, mpirun did not: a host was lost, or mpirun hangs";
  if (code == static_cast<int>(ExitCode::internal))
    return "an internal error, or mpirun could not start the ranks";
  if (code == static_cast<int>(ExitCode::communication)) return "communication failed or hung";
  if (is_by_signal(code)) return cat("a rank was killed by ", signal_name(code - kBySignal));
  return cat("mpirun ended with ", code, ": a host or a rank was lost");
}

}  // namespace

bool is_by_signal(int code) { return code > kBySignal && code < kBySignal + 32; }

Outcome outcome_of(int code, bool hung, bool asked) {
  if (!hung) {
    switch (static_cast<ExitCode>(code)) {
      case ExitCode::done:
        return {Meaning::done, code, "done"};
      case ExitCode::config:
        return {Meaning::final, code, "the run file or the command line is wrong"};
      case ExitCode::data:
        return {Meaning::final, code, "data cannot be read"};
      case ExitCode::checkpoint:
        return {Meaning::final, code, "no valid checkpoint, or one cannot be written"};
      case ExitCode::non_finite:
        return {Meaning::final, code, "the loss or the gradients are not as they must be"};
      case ExitCode::stopped:
        return {Meaning::stopped, code, "stopped on request, or its time was over"};
      default:
        break;
    }
  }
  // A signal that mpirun gets before its ranks are there ends it; nothing was done yet.
  const bool too_early = code == kBySignal + SIGUSR1;
  if (asked)
    return {Meaning::stopped, too_early ? static_cast<int>(ExitCode::stopped) : code,
            too_early ? "stopped on request before the program was there" : crash_text(code, hung)};
  return {Meaning::restart, code, crash_text(code, hung)};
}

}  // namespace tptrain::launch
