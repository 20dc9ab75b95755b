// Work on several things by several threads, with errors that do not depend on their number.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

namespace tptrain::data {

struct Turn {
  size_t index;
  const std::atomic<bool>& given_up;  // for work that takes long: what it does counts no more
};

/// Calls `work` for each of 0 .. count - 1, `threads` at a time. Throws what the lowest index
/// threw, when all have ended. The calling thread passes interruption points meanwhile; where one
/// throws, nothing more is begun.
void for_each_index(size_t count, int threads, const std::function<void(const Turn&)>& work);

}  // namespace tptrain::data
