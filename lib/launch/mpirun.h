// mpirun's command line and environment for a run on this machine, from plain facts.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "launch/hosts.h"

namespace tptrain::launch {

/// What decides mpirun's options, of the host that starts it.
struct Machine {
  bool is_root = false;
  int cores = 1;
  /// A process may read the memory of another of the same user (process_vm_readv), as Open MPI does
  /// for long messages unless it is told not to; containers often forbid it.
  bool reads_other_processes = true;
};
/// Of this host.
Machine this_machine();

struct MpirunOptions {
  int64_t ranks = 1;
  std::vector<Host> hosts = {};  // empty: this one
  std::string agent = {};        // what starts a command on a host; "": ssh
  std::string wrapper = "mpirun";
  std::vector<std::string> forwarded = {};  // variables that the ranks of other hosts get
  std::vector<std::string> program = {};    // and its arguments
};

struct CommandLine {
  std::vector<std::string> words = {};
  std::vector<std::pair<std::string, std::string>> environment = {};  // added to this process's
};
CommandLine mpirun_command(const MpirunOptions& options, const Machine& machine);

/// Names of this process's variables that a run reads: of NCCL, UCX, CUDA, OpenMP, the loader.
std::vector<std::string> variables_of_a_run();

}  // namespace tptrain::launch
