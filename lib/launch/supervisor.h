// The life of a run over several starts of its job: started, judged by its exit code, started again
// from its last checkpoint where that can help, on fewer ranks where the user allows it. What a
// checkpoint is, and where a run goes on, is the program's business: each start is the same
// command.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/hosts.h"
#include "launch/layout.h"
#include "launch/mpirun.h"

namespace tptrain::launch {

struct LaunchOptions {
  int64_t ranks = 1;
  int64_t least_ranks = 1;  // equal to ranks: never with fewer
  int64_t max_restarts = 3;
  std::vector<Host> hosts = {};  // empty: this one
  std::string agent = {};
  std::string wrapper = "mpirun";
  std::vector<std::string> program = {};  // and its arguments
  Layout layout = {};
  std::filesystem::path run_dir;
};

/// What the supervisor asks and tells; all of them are called on its thread.
struct Surroundings {
  Machine machine;
  /// Of the newest checkpoint of run_dir, by its manifest alone; nothing: there is none.
  std::function<std::optional<int64_t>()> newest_step;
  /// That this host has; nothing: the run uses none.
  std::function<std::optional<int64_t>()> gpus_here;
  std::function<void(const std::string&)> say;
};

/// Returns the launcher's exit code: of the last job, as outcome.h says. A signal (base/stop.h)
/// reaches the ranks as SIGUSR1. Throws ConfigError where mpirun cannot be started.
int supervise(const LaunchOptions& options, const Surroundings& surroundings);

}  // namespace tptrain::launch
