#include "base/siblings.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "base/processes.h"
#include "base/text.h"

namespace tptrain {

std::string siblings_that_do_not_run() {
  namespace fs = std::filesystem;
  std::vector<std::string> found;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (const int pid : children_of(::getppid())) {
    if (pid == ::getpid()) continue;
    const ProcessStatus status = process_status(pid);
    const std::string state = why_it_does_not_run(status);
    if (state.empty()) continue;
    std::error_code gone;
    // A process that has ended has no program any more.
    if (status.state != 'Z' && fs::read_symlink(cat("/proc/", pid, "/exe"), gone) != program)
      continue;
    const std::string rank = rank_of_process(pid);
    found.push_back(
        cat(rank.empty() ? "" : cat("rank ", rank, " "), "(process ", pid, ") ", state));
  }
  return join(found, ", ");
}

}  // namespace tptrain
