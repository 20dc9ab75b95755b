// How a size is cut over the ranks of an axis where it does not divide. Pure arithmetic.
#pragma once

#include <cstdint>

namespace tptrain::tensor_parallel {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// The part of [0, size) that `rank` of `ranks` holds: equal parts where they exist, else the first
/// ranks get one more. Large parts are cut at multiples of 8, so that tensor cores can work on
/// them; the last non-empty part may then be the shorter one. Needs size >= ranks (InternalError).
Range share_of(int64_t size, int rank, int ranks);

}  // namespace tptrain::tensor_parallel
