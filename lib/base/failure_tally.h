// Failures of what stands beside the training (metrics, the log, an evaluation): counted, said once
// and then rarely, and summed up at the end. Decides when to speak; speaks nowhere itself.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace tptrain {

class FailureTally {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::minutes kSilence{10};

  /// Counts a failure; true where it is to be said now: the first one, and then one in ten minutes.
  bool note(std::string reason, Time now = std::chrono::steady_clock::now());

  int64_t count() const { return count_; }
  const std::string& last_reason() const { return last_reason_; }

 private:
  int64_t count_ = 0;
  std::string last_reason_;
  std::optional<Time> last_said_;
};

}  // namespace tptrain
