// The limits of control groups, in folders as the kernel shows them.
#include "base/memory_groups.h"

#include <limits>

#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

using testing::TempDir;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

void put_version2(const TempDir& mounts, const std::string& group, const char* limit,
                  const char* used, const char* statistics = "anon 5\n") {
  mounts.put(group + "/memory.max", limit);
  mounts.put(group + "/memory.current", used);
  mounts.put(group + "/memory.stat", statistics);
}

}  // namespace

TEST_CASE("the tightest limit counts, of the own group or of one above it", "[base]") {
  const TempDir mounts;
  mounts.put("cgroup.controllers", "cpu memory\n");
  const std::string own = "0::/slurm/job_7/step_0\n";
  CHECK(bytes_left_in_groups(own, mounts.path()) == kNoLimit);
  put_version2(mounts, "slurm/job_7/step_0", "max\n", "400\n");
  CHECK(bytes_left_in_groups(own, mounts.path()) == kNoLimit);
  put_version2(mounts, "slurm/job_7", "1000\n", "700\n");
  CHECK(bytes_left_in_groups(own, mounts.path()) == 300);
  put_version2(mounts, "slurm/job_7/step_0", "450\n", "400\n");
  CHECK(bytes_left_in_groups(own, mounts.path()) == 50);
  // Another job's limit is none of this one's.
  put_version2(mounts, "slurm/job_8", "10\n", "10\n");
  CHECK(bytes_left_in_groups(own, mounts.path()) == 50);
}

TEST_CASE("pages of files give way, and a group may be over its limit", "[base]") {
  const TempDir mounts;
  mounts.put("cgroup.controllers", "memory\n");
  put_version2(mounts, "a", "1000\n", "1000\n",
               "anon 700\nfile 300\ninactive_file 200\nactive_file 50\nshmem 50\n");
  CHECK(bytes_left_in_groups("0::/a\n", mounts.path()) == 250);
  put_version2(mounts, "a", "1000\n", "1200\n");
  CHECK(bytes_left_in_groups("0::/a\n", mounts.path()) == 0);
}

TEST_CASE("a container sees its own group's folder as the topmost", "[base]") {
  const TempDir mounts;
  mounts.put("cgroup.controllers", "memory\n");
  put_version2(mounts, ".", "900\n", "100\n");
  CHECK(bytes_left_in_groups("0::/\n", mounts.path()) == 800);
  CHECK(bytes_left_in_groups("0::/docker/1f2e\n", mounts.path()) == 800);
  CHECK(bytes_left_in_groups("0::/../..\n", mounts.path()) == 800);
}

TEST_CASE("limits of control groups of version 1, also beside version 2", "[base]") {
  const TempDir mounts;
  const std::string own =
      "5:cpu,cpuacct:/other\n4:memory:/slurm/uid_0/job_7\n1:name=systemd:/s\n0::/s\n";
  mounts.put("memory/slurm/uid_0/memory.limit_in_bytes", "9223372036854771712\n");
  mounts.put("memory/slurm/uid_0/memory.usage_in_bytes", "800\n");
  mounts.put("memory/slurm/uid_0/job_7/memory.limit_in_bytes", "1000\n");
  mounts.put("memory/slurm/uid_0/job_7/memory.usage_in_bytes", "800\n");
  mounts.put("memory/slurm/uid_0/job_7/memory.stat",
             "inactive_file 1\nactive_file 1\ntotal_inactive_file 60\ntotal_active_file 40\n");
  CHECK(bytes_left_in_groups(own, mounts.path()) == 300);
  mounts.put("unified/s/memory.max", "70\n");
  mounts.put("unified/s/memory.current", "50\n");
  CHECK(bytes_left_in_groups(own, mounts.path()) == 20);
}

TEST_CASE("where the system tells nothing of control groups there is no limit", "[base]") {
  const TempDir mounts;
  CHECK(bytes_left_in_groups("", mounts.path()) == kNoLimit);
  CHECK(bytes_left_in_groups("nonsense\n:\n", mounts.path()) == kNoLimit);
}

}  // namespace tptrain
