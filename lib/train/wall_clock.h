// The time as rows of metrics.jsonl have it.
#pragma once

#include <chrono>

namespace tptrain::train {

inline double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace tptrain::train
