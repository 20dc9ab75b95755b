#include "base/work.h"

#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "base/interruption.h"

namespace tptrain {

namespace {

// Of the process, as its memory and its standard output are: what does the work knows nothing of
// who watches.
std::mutex mutex;
std::vector<WorkState> works;  // the innermost last
uint64_t begun = 0;
std::mutex observer_mutex;
std::function<void()> observer;
std::atomic<int64_t> bytes_done{0};
std::atomic<int64_t> parts_done{0};

std::atomic<int64_t>& counter_of(WorkUnit unit) {
  return unit == WorkUnit::bytes ? bytes_done : parts_done;
}

}  // namespace

Work::Work(std::string what, WorkUnit unit, int64_t total) {
  const std::lock_guard lock(mutex);
  // `done` holds where the counter stood: the difference is what this work has done.
  works.push_back({.number = ++begun,
                   .what = std::move(what),
                   .unit = unit,
                   .total = total,
                   .done = counter_of(unit).load(std::memory_order_relaxed),
                   .begun = std::chrono::steady_clock::now()});
}

Work::~Work() {
  {
    const std::lock_guard lock(mutex);
    works.pop_back();
  }
  const std::lock_guard lock(observer_mutex);
  if (observer) observer();
}

void observe_end_of_work(std::function<void()> new_observer) {
  const std::lock_guard lock(observer_mutex);
  observer = std::move(new_observer);
}

void work_done(WorkUnit unit, int64_t amount) {
  counter_of(unit).fetch_add(amount, std::memory_order_relaxed);
  interruption_point();
}

std::optional<WorkState> current_work() {
  const std::lock_guard lock(mutex);
  if (works.empty()) return std::nullopt;
  WorkState state = works.back();
  state.done = counter_of(state.unit).load(std::memory_order_relaxed) - state.done;
  return state;
}

}  // namespace tptrain
