#include "base/memory_groups.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>

namespace tptrain {

namespace fs = std::filesystem;

namespace {

// The files of a group, and the prefix with which its statistics count the groups below it too.
struct Version {
  const char* limit;
  const char* used;
  const char* of_all_below;
};
constexpr Version kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_"};
constexpr Version kVersion2 = {"memory.max", "memory.current", ""};

// Nothing for "max", and where there is no such file.
std::optional<int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

int64_t file_pages(const fs::path& group, const Version& version) {
  const std::string inactive = std::string(version.of_all_below) + "inactive_file";
  const std::string active = std::string(version.of_all_below) + "active_file";
  std::ifstream statistics(group / "memory.stat");
  std::string name;
  int64_t total = 0;
  for (int64_t bytes = 0; statistics >> name >> bytes;) {
    if (name == inactive || name == active) total += bytes;
  }
  return total;
}

int64_t left_in(const fs::path& group, const Version& version) {
  const std::optional<int64_t> limit = number_in(group / version.limit);
  const std::optional<int64_t> used = number_in(group / version.used);
  if (!limit || !used) return std::numeric_limits<int64_t>::max();
  return std::max<int64_t>(*limit - *used + file_pages(group, version), 0);
}

// A container may see its own group's folder as the topmost one, and its path as on the host: what
// is not there has no limit here.
int64_t left_on_the_way_up(const fs::path& top, fs::path group, const Version& version) {
  int64_t left = left_in(top, version);
  for (; group.has_relative_path(); group = group.parent_path())
    left = std::min(left, left_in(top / group.relative_path(), version));
  return left;
}

bool names_memory(std::string_view controllers) {
  while (true) {
    const size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == "memory") return true;
    if (comma == std::string_view::npos) return false;
    controllers.remove_prefix(comma + 1);
  }
}

}  // namespace

// Lines are "number:controllers:path"; that of version 2 is "0::path".
int64_t bytes_left_in_groups(const std::string& own, const fs::path& mounts) {
  std::error_code missing;
  const bool version1_beside = !fs::exists(mounts / "cgroup.controllers", missing);
  int64_t left = std::numeric_limits<int64_t>::max();
  std::istringstream lines(own);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      const fs::path top = version1_beside ? mounts / "unified" : mounts;
      left = std::min(left, left_on_the_way_up(top, group, kVersion2));
    } else if (names_memory(controllers)) {
      left = std::min(left, left_on_the_way_up(mounts / "memory", group, kVersion1));
    }
  }
  return left;
}

}  // namespace tptrain
