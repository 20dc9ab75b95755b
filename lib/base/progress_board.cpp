#include "base/progress_board.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace tptrain {

namespace {

// Decimal units, as the sizes of messages are given everywhere.
std::string message_size(int64_t bytes) {
  constexpr std::array<std::string_view, 4> kUnits = {"kB", "MB", "GB", "TB"};
  if (bytes < 1000) return cat(bytes, " B");
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return cat(fixed(value, 1), " ", kUnits[unit]);
}

}  // namespace

void ProgressBoard::enter(std::string_view phase, int64_t step, double patience) {
  const std::lock_guard lock(mutex_);
  ++writes_;
  phase_ = phase;
  step_ = step;
  patience_ = patience;
}

void ProgressBoard::collective(std::string_view axis, std::string_view call, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  ++writes_;
  ++collectives_;
  const size_t length = std::min(axis.size(), axis_.size() - 1);
  std::copy_n(axis.begin(), length, axis_.begin());
  axis_[length] = '\0';
  call_ = call;
  bytes_ = bytes;
}

void ProgressBoard::advance() {
  const std::lock_guard lock(mutex_);
  ++writes_;
}

void ProgressBoard::fail(ExitCode code, std::string message) {
  const std::lock_guard lock(mutex_);
  ++writes_;
  failure_ = std::move(message);
  failure_code_ = code;
}

ProgressBoard::Entry ProgressBoard::read() const {
  const std::lock_guard lock(mutex_);
  return {.writes = writes_,
          .phase = phase_,
          .step = step_,
          .patience = patience_,
          .axis = axis_.data(),
          .call = call_,
          .bytes = bytes_,
          .collectives = collectives_,
          .failure = failure_,
          .failure_code = failure_code_};
}

std::string describe(const ProgressBoard::Entry& entry) {
  std::string text;
  if (entry.step >= 0) text += cat("step ", entry.step, ", ");
  text += entry.phase.empty() ? "before the first phase" : entry.phase;
  if (entry.collectives == 0) return text + ", no collective yet";
  return text + cat(", last collective \"", entry.axis, ": ", entry.call, " of ",
                    message_size(entry.bytes), ", number ", entry.collectives, "\"");
}

}  // namespace tptrain
