// Which host this is and which build of the program runs on it.
#pragma once

#include <cstdint>
#include <string>

namespace tptrain {

/// As the system calls this host; "?" where it has no name.
std::string host_name();

/// The identity that the linker gave this executable: equal for copies, another one for each other
/// build. Hex; "" where the linker gave none.
std::string program_build_id();

/// Bytes of this host's memory that a process could take without others being pushed out, within
/// the limit of its control group; the largest number where the system does not say.
int64_t available_host_memory_bytes();

}  // namespace tptrain
