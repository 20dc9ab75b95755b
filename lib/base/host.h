// Which host this is and which build of the program runs on it.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace tptrain {

/// As the system calls this host; "?" where it has no name.
std::string host_name();

/// The identity that the linker gave this executable: equal for copies, another one for each other
/// build. Hex; "" where the linker gave none.
std::string program_build_id();

struct HostMemory {
  /// The largest number where the system does not say.
  int64_t available_bytes = std::numeric_limits<int64_t>::max();
  /// By a control group of this process (a container's, a job's), not by what the host has.
  bool limited = false;
};
/// What of this host's memory a process could take without others being pushed out.
HostMemory available_host_memory();

}  // namespace tptrain
