// tptrain launch: the ranks of a training run, started and started again.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "cli.h"
#include "commands/commands.h"
#include "config/parse.h"
#include "device/host_gpus.h"
#include "launch/supervisor.h"
#include "report/run_record.h"
#include "train/hang_timeout.h"

namespace tptrain::apps {
namespace {

namespace fs = std::filesystem;

config::RunConfig read_config(const LaunchCommand& command) {
  const std::string text = read_file(command.config, train::kMaxRunFileBytes, FailAs::config_error);
  return config::parse_run_config(text, command.config, command.sets).config;
}

int64_t ranks_of(const LaunchCommand& command, const config::ParallelConfig& parallel) {
  if (command.ranks) return *command.ranks;
  if (parallel.dp_size > 0) return parallel.tp_size * parallel.dp_size;
  throw ConfigError(problem("-n is left out, and the run file does not say parallel.dp_size")
                        .at("tptrain launch")
                        .must("be told how many ranks to start")
                        .remedy("tptrain launch -n 4 --config " + command.config));
}

/// The program that this one was started as; front.cpp became this one.
std::string own_program() {
  constexpr std::string_view kBehindFront = "-program";
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  if (!self.ends_with(kBehindFront)) return self;
  const std::string front = self.substr(0, self.size() - kBehindFront.size());
  std::error_code missing;
  return fs::exists(front, missing) ? front : self;
}

std::vector<std::string> program_of(const LaunchCommand& command) {
  std::vector<std::string> words = {own_program(), "--config", command.config};
  for (const std::string& set : command.sets) {
    words.push_back("--set");
    words.push_back(set);
  }
  return words;
}

std::optional<int64_t> newest_step(const fs::path& run_dir) {
  const std::vector<report::StoredCheckpoint> stored = report::stored_checkpoints(run_dir);
  if (stored.empty()) return std::nullopt;
  return stored.back().step;
}

/// Counted by a child: a process that has once asked the driver sees the GPUs of that moment.
std::optional<int64_t> gpus_of_host() {
  const pid_t child = fork();
  if (child < 0) return std::nullopt;
  if (child == 0) _exit(static_cast<int>(std::min<size_t>(device::host_gpus().gpus.size(), 255)));
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return std::nullopt;
  return WEXITSTATUS(status);
}

bool uses_gpus(const config::TrainConfig& train) {
  if (train.device == config::Device::cpu) return false;
  return train.device == config::Device::cuda || gpus_of_host().value_or(0) > 0;
}

}  // namespace

int run_launch(const LaunchCommand& command) {
  const config::RunConfig run = read_config(command);
  const int64_t ranks = ranks_of(command, run.parallel);
  const int64_t least = command.min_ranks.value_or(ranks);
  if (least > ranks)
    throw ConfigError(problem(cat("--min-ranks is ", least))
                          .at("tptrain launch")
                          .must(cat("be at most -n, ", ranks)));
  const bool on_gpus = uses_gpus(run.train);
  return launch::supervise(
      {.ranks = ranks,
       .least_ranks = least,
       .max_restarts = command.max_restarts,
       .hosts = command.hosts.empty() ? std::vector<launch::Host>{}
                                      : launch::parse_hosts(command.hosts, ranks),
       .agent = command.agent,
       .wrapper = command.mpirun,
       .program = program_of(command),
       .layout = launch::layout_of(run),
       .run_dir = run.run_dir},
      {.machine = launch::this_machine(),
       .newest_step = [&] { return newest_step(run.run_dir); },
       .gpus_here = [&] { return on_gpus ? gpus_of_host() : std::nullopt; },
       .say = [](const std::string& line) { std::cout << "launch: " << line << std::endl; }});
}

}  // namespace tptrain::apps
