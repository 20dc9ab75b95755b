// Whether a copy of the state fits into the memory of each host.
#include "train/snapshot_memory.h"

#include "base/host.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::train {

TEST_CASE("copies of all ranks of a host must fit into what it has left, with a fifth to spare",
          "[train]") {
  constexpr int64_t kGib = int64_t{1} << 30;
  const auto ranks = [](int64_t second_host_has) {
    return std::vector<SnapshotMemory>{{"a", 3 * kGib, {100 * kGib}},
                                       {"a", 3 * kGib, {99 * kGib}},
                                       {"b", 3 * kGib, {second_host_has}},
                                       {"b", 4 * kGib, {second_host_has + 1, true}}};
  };
  CHECK(lack_of_snapshot_memory(ranks(10 * kGib)).empty());
  const std::string lack = lack_of_snapshot_memory(ranks(8 * kGib));
  CHECK(lack ==
        "a copy of the state takes 7.00 GiB of b's memory, of which 8.00 GiB are available");
  CHECK(lack_of_snapshot_memory({{"a", 1 * kGib, {kGib, true}}}) ==
        "a copy of the state takes 1.00 GiB of a's memory, of which 1.00 GiB are available within "
        "the limit of this job or container");
  CHECK(available_host_memory().available_bytes > 0);
  CHECK(available_host_memory().available_bytes < int64_t{1} << 50);
}

}  // namespace tptrain::train
