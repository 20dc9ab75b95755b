// How sizes are cut over ranks.
#include "tensor_parallel/partition.h"

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using tensor_parallel::Range;
using tensor_parallel::share_of;

std::vector<int64_t> sizes_of(int64_t size, int ranks) {
  std::vector<int64_t> sizes;
  for (int rank = 0; rank < ranks; ++rank) sizes.push_back(share_of(size, rank, ranks).size());
  return sizes;
}

TEST_CASE("the shares of all ranks cover a size without gaps, each rank has one") {
  for (const int64_t size :
       {1, 2, 3, 5, 7, 8, 14, 53, 64, 1003, 1024, 4095, 4097, 8191, 18944, 50257, 151936}) {
    for (int ranks = 1; ranks <= 16 && ranks <= size; ++ranks) {
      CAPTURE(size, ranks);
      int64_t next = 0;
      bool all_have_some = true;
      for (int rank = 0; rank < ranks; ++rank) {
        const Range share = share_of(size, rank, ranks);
        CHECK(share.begin == next);
        all_have_some = all_have_some && share.size() > 0;
        next = share.end;
      }
      CHECK(next == size);
      CHECK(all_have_some);
    }
  }
}

TEST_CASE("shares are equal where they can be") {
  CHECK(sizes_of(12, 4) == std::vector<int64_t>{3, 3, 3, 3});
  CHECK(sizes_of(4100, 4) == std::vector<int64_t>{1025, 1025, 1025, 1025});  // large, no 8s
}

TEST_CASE("the first ranks of an uneven cut get one more") {
  CHECK(sizes_of(14, 4) == std::vector<int64_t>{4, 4, 3, 3});
  CHECK(sizes_of(1003, 4) == std::vector<int64_t>{251, 251, 251, 250});
}

TEST_CASE("large uneven shares are cut at multiples of 8") {
  CHECK(sizes_of(4099, 4) == std::vector<int64_t>{1032, 1024, 1024, 1019});
  CHECK(sizes_of(50257, 2) == std::vector<int64_t>{25136, 25121});
  for (const int64_t size : {4099, 50257, 151937}) {
    for (const int ranks : {2, 3, 4}) {
      CAPTURE(size, ranks);
      for (int rank = 1; rank < ranks; ++rank) CHECK(share_of(size, rank, ranks).begin % 8 == 0);
    }
  }
}

TEST_CASE("a size that leaves a rank without a part is an internal error") {
  CHECK_THROWS_WITH(share_of(3, 0, 4),
                    "internal error: a size of 3 for rank 0 of 4: it must give every rank a part."
                    "\n  check_tp_size tells so before a model is built.");
  CHECK_THROWS_AS(share_of(8, 4, 4), InternalError);
  CHECK_THROWS_AS(share_of(8, -1, 4), InternalError);
}

}  // namespace
}  // namespace tptrain::testing
