#include "base/interruption.h"

#include <atomic>
#include <chrono>
#include <utility>

#include "base/stop.h"

namespace tptrain {

namespace {

constexpr int64_t kSayEveryNs = 250'000'000;

std::atomic<uint64_t> passed{0};
thread_local WorkScope* innermost = nullptr;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

WorkScope::WorkScope(OnStop on_stop, std::function<void()> still_working)
    : outer_(std::exchange(innermost, this)),
      on_stop_(on_stop),
      still_working_(std::move(still_working)),
      last_said_ns_(now_ns()) {}

WorkScope::~WorkScope() { innermost = outer_; }

void interruption_point() {
  passed.fetch_add(1, std::memory_order_relaxed);
  WorkScope* const scope = innermost;
  if (scope == nullptr) return;
  if (const int64_t now = now_ns(); now - scope->last_said_ns_ >= kSayEveryNs) {
    scope->last_said_ns_ = now;
    scope->still_working_();
  }
  if (scope->on_stop_ == OnStop::give_up && stop_requested()) throw StopRequested();
}

uint64_t interruption_points_passed() { return passed.load(std::memory_order_relaxed); }

}  // namespace tptrain
