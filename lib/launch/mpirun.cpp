#include "launch/mpirun.h"

#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/background.h"
#include "base/text.h"

namespace tptrain::launch {
namespace {

// A host that is gone, or cut off, is noticed by mpirun within 6 + 3 * 3 s; by default that takes
// eight minutes, in which what is left of the job waits, and in Open MPI 4.1 mpirun never ends
// where the ranks do before.
constexpr std::array<std::pair<const char*, const char*>, 3> kLostHost = {
    {{"oob_tcp_keepalive_time", "6"},
     {"oob_tcp_keepalive_intvl", "3"},
     {"oob_tcp_keepalive_probes", "3"}}};

/// Tried on a child, which the kernel allows wherever it allows anything.
bool may_read_other_processes() {
  volatile char byte = 'x';
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    pause();
    _exit(0);
  }
  char copy = 0;
  const iovec local{.iov_base = &copy, .iov_len = 1};
  const iovec remote{.iov_base = const_cast<char*>(&byte), .iov_len = 1};
  const bool read = process_vm_readv(child, &local, 1, &remote, 1, 0) == 1;
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return read;
}

}  // namespace

Machine this_machine() {
  return {.is_root = geteuid() == 0,
          .cores = usable_cores(),
          .reads_other_processes = may_read_other_processes()};
}

CommandLine mpirun_command(const MpirunOptions& options, const Machine& machine) {
  CommandLine line{.words = {options.wrapper, "-n", std::to_string(options.ranks)}};
  const auto add = [&](std::initializer_list<std::string> words) {
    line.words.insert(line.words.end(), words);
  };
  // Consecutive ranks, and so a tp group, on one host. The ranks of a host divide its cores among
  // themselves, which they cannot where each is bound to one.
  add({"--map-by", "slot", "--bind-to", "none"});
  if (machine.is_root) add({"--allow-run-as-root"});
  int64_t here = options.ranks;
  if (options.hosts.empty()) {
    add({"--oversubscribe"});  // mpirun counts cores without their threads, and refuses what is
                               // more
  } else {
    add({"--host", text_of(options.hosts)});
    here = 0;
    for (const Host& host : options.hosts) here = std::max(here, host.slots);
    if (!options.agent.empty()) add({"--mca", "plm_rsh_agent", options.agent});
    for (const auto& [name, value] : kLostHost) add({"--mca", name, value});
    for (const std::string& name : options.forwarded) add({"-x", name});
  }
  // Ranks that wait give their core to those that work.
  if (here > machine.cores) add({"--mca", "mpi_yield_when_idle", "1"});
  if (!machine.reads_other_processes) add({"--mca", "btl_vader_single_copy_mechanism", "none"});
  line.words.insert(line.words.end(), options.program.begin(), options.program.end());
  // mpirun's remote half asks for the same leave to run as root.
  if (machine.is_root)
    line.environment = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"}, {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"}};
  return line;
}

std::vector<std::string> variables_of_a_run() {
  constexpr std::array<std::string_view, 7> kBeginnings = {
      "NCCL_", "UCX_", "CUDA_", "CUBLAS_", "OMP_", "LD_LIBRARY_PATH", "TPTRAIN_"};
  std::vector<std::string> names;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    const std::string_view name = text.substr(0, text.find('='));
    if (std::any_of(kBeginnings.begin(), kBeginnings.end(),
                    [&](std::string_view begin) { return name.starts_with(begin); }))
      names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace tptrain::launch
