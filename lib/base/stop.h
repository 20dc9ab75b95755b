// A wish from outside to end the process in order: SIGUSR1, SIGUSR2, SIGTERM, SIGINT and SIGHUP, or
// the word of another rank that got one. What is under way is ended or given up where that is safe,
// the state is saved, and the process leaves with ExitCode::stopped.
#pragma once

#include <string>

#include "base/error.h"

namespace tptrain {

/// From here to the end of the process these signals ask for a stop instead of ending it: also on
/// the way out, where a launcher sends SIGTERM to whoever is not gone yet. A second SIGINT ends the
/// process as it would any other. SIGHUP stays ignored where it is (nohup). To be called first
/// thing in main; what came while the signals were blocked (launcher.cpp) counts.
void heed_stop_signals();
/// For a command that has nothing to save: the signals get their usual meaning.
void unblock_stop_signals();
/// Until heed_ or unblock_stop_signals they wait.
void block_stop_signals();

/// True once a signal has come or request_stop() was called; never false again.
bool stop_requested();
/// Another rank was asked to stop.
void request_stop();
/// "SIGUSR1", or "another rank was asked to stop"; "" where no stop is requested.
std::string stop_reason();

/// Unwinds work that was given up for a stop. Nothing is wrong: the run goes on when it is started
/// again.
class StopRequested : public Error {
 public:
  StopRequested() : Error(ExitCode::stopped, "stopped on request (" + stop_reason() + ")") {}
};

}  // namespace tptrain
