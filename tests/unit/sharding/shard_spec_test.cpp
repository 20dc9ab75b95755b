// Slices of row-major tensors against ATen's narrow: every run must lead each local element to the
// same value.
#include "sharding/shard_spec.h"

#include <ATen/ATen.h>

#include <string>

#include "base/error.h"
#include "sharding/state_dict.h"
#include "support/catch.h"

namespace tptrain::sharding {
namespace {

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "(no error)";
}

// The slice's elements [begin, end), read from the global tensor 0, 1, 2, ... through the runs.
void check_runs(const ShardSpec& spec, int64_t begin, int64_t end) {
  at::Tensor global = at::arange(spec.global_numel(), at::kLong).view(spec.global_shape);
  if (!spec.whole()) global = global.narrow(spec.dim, spec.begin, spec.end - spec.begin);
  const at::Tensor local = global.contiguous().view({-1});
  int64_t next = begin;
  int64_t last_global = -1;
  for (const Run& run : runs_of(spec, begin, end)) {
    REQUIRE(run.local_begin == next);
    REQUIRE(run.count > 0);
    REQUIRE(run.global_begin > last_global);  // else it had to be merged with the run before
    for (int64_t i = 0; i < run.count; ++i) {
      REQUIRE(local[run.local_begin + i].item<int64_t>() == run.global_begin + i);
    }
    next += run.count;
    last_global = run.global_begin + run.count;
  }
  REQUIRE(next == end);
}

}  // namespace

TEST_CASE("runs lead to the elements that narrow takes, for every dim of 1 to 4 dims",
          "[sharding]") {
  const std::vector<std::vector<int64_t>> shapes = {{7}, {5, 6}, {3, 4, 5}, {2, 3, 4, 3}};
  for (const auto& shape : shapes) {
    for (int64_t dim = 0; dim < static_cast<int64_t>(shape.size()); ++dim) {
      for (int64_t first = 0; first <= shape[dim]; ++first) {
        for (int64_t last = first; last <= shape[dim]; ++last) {
          const ShardSpec spec = slice_of("t", shape, dim, first, last);
          const int64_t numel = spec.local_numel();
          check_runs(spec, 0, numel);
          check_runs(spec, numel / 3, numel - numel / 4);
        }
      }
    }
    check_runs(whole_tensor("t", shape), 1, whole_tensor("t", shape).local_numel());
  }
}

TEST_CASE("rows are one run, columns one run a row, a full cut one run", "[sharding]") {
  REQUIRE(runs_of(slice_of("w", {8, 6}, 0, 2, 5), 0, 18).size() == 1);
  REQUIRE(runs_of(slice_of("w", {8, 6}, 0, 2, 5), 0, 18)[0].global_begin == 12);
  REQUIRE(runs_of(slice_of("w", {8, 6}, 1, 2, 5), 0, 24).size() == 8);
  REQUIRE(runs_of(slice_of("w", {8, 6}, 1, 2, 5), 4, 8).size() == 2);
  REQUIRE(runs_of(slice_of("w", {8, 6}, 1, 0, 6), 5, 48).size() == 1);
  REQUIRE(runs_of(slice_of("w", {1, 6}, 1, 1, 5), 0, 4).size() == 1);
  REQUIRE(runs_of(slice_of("w", {8, 6}, 1, 2, 5), 7, 7).empty());
}

TEST_CASE("local and global sizes", "[sharding]") {
  const ShardSpec spec = slice_of("w", {8, 6}, 1, 2, 5);
  CHECK(spec.local_shape() == std::vector<int64_t>{8, 3});
  CHECK(spec.local_numel() == 24);
  CHECK(spec.global_numel() == 48);
  CHECK_FALSE(spec.whole());
  const ShardSpec whole = whole_tensor("n", {8});
  CHECK(whole.whole());
  CHECK(whole.local_shape() == std::vector<int64_t>{8});
  CHECK(spec == slice_of("w", {8, 6}, 1, 2, 5));
  CHECK_FALSE(spec == slice_of("w", {8, 6}, 1, 2, 6));
}

TEST_CASE("a slice or a range outside its tensor is refused by name", "[sharding]") {
  CHECK(message_of([] {
          slice_of("q_proj.weight", {8, 6}, 1, 2, 7);
        }) ==
        "internal error: slice [2, 7) of dim 1 of 'q_proj.weight': it must lie within [0, 6).");
  CHECK(message_of([] {
          slice_of("w", {8, 6}, 1, -1, 3);
        }) == "internal error: slice [-1, 3) of dim 1 of 'w': it must lie within [0, 6).");
  CHECK(message_of([] {
          slice_of("w", {8, 6}, 1, 4, 3);
        }) == "internal error: slice [4, 3) of dim 1 of 'w': it must lie within [0, 6).");
  CHECK(message_of([] {
          slice_of("w", {8, 6}, 2, 0, 3);
        }) == "internal error: 'w' is cut along dim 2: it must be cut along one of its 2 dims.");
  CHECK(message_of([] {
          slice_of("w", {8, 6}, -1, 0, 3);
        }) ==
        "internal error: 'w' is cut along dim -1: it must be cut along one of its dims "
        "(whole_tensor() cuts nothing).");
  CHECK(message_of([] {
          whole_tensor("w", {8, -6});
        }) == "internal error: shape of 'w' is [8, -6]: it must hold no negative size.");
  CHECK(message_of([] {
          runs_of(slice_of("w", {8, 6}, 1, 2, 5), 3, 25);
        }) == "internal error: elements [3, 25) of a slice of 'w': it must lie within [0, 24).");
  CHECK(message_of([] { runs_of(whole_tensor("w", {8}), 3, 2); }) ==
        "internal error: elements [3, 2) of a slice of 'w': it must lie within [0, 8).");
}

TEST_CASE("names of kinds of state", "[sharding]") {
  CHECK(is_state_kind(kMaster));
  CHECK(is_state_kind("exp_avg_sq"));
  for (const char* no_name : {"", "Exp", "a b", "a/b", "\x1b[31m"})
    CHECK_FALSE(is_state_kind(no_name));
  CHECK_FALSE(is_state_kind(std::string(65, 'a')));
  CHECK(kind_before(kMaster, "exp_avg"));
  CHECK_FALSE(kind_before("exp_avg", kMaster));
  CHECK(kind_before("exp_avg", "exp_avg_sq"));
}

}  // namespace tptrain::sharding
