// What control groups (cgroups(7), of both versions) leave of a host's memory to this process: a
// scheduler's job, a container or a service has limits of its own, in folders below the one that is
// mounted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace tptrain {

/// Until the tightest limit of the groups that `own` names (the text of /proc/self/cgroup) and of
/// all above them, under `mounts` (/sys/fs/cgroup). Pages of files give way and do not count as
/// used. The largest number where there is no limit.
int64_t bytes_left_in_groups(const std::string& own, const std::filesystem::path& mounts);

}  // namespace tptrain
