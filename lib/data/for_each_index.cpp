#include "data/for_each_index.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "base/interruption.h"
#include "base/stop.h"

namespace tptrain::data {

namespace {

constexpr auto kPause = std::chrono::milliseconds(1);

}  // namespace

void for_each_index(size_t count, int threads, const std::function<void(const Turn&)>& work) {
  std::vector<std::exception_ptr> failures(count);
  std::atomic<size_t> next{0};
  std::atomic<size_t> ended{0};
  std::atomic<bool> given_up{false};
  const auto turns = [&] {
    for (size_t i = next++; i < count && !given_up; i = next++) {
      try {
        work({i, given_up});
      } catch (const StopRequested&) {
        given_up = true;
        failures[i] = std::current_exception();
      } catch (...) {
        failures[i] = std::current_exception();
      }
      ++ended;
    }
  };
  const size_t most = std::min(count, static_cast<size_t>(std::max(threads, 1)));
  std::vector<std::jthread> others;
  try {
    for (size_t i = 1; i < most; ++i) others.emplace_back(turns);
    turns();
    for (; ended < count && !given_up; std::this_thread::sleep_for(kPause)) interruption_point();
  } catch (...) {
    given_up = true;
    throw;
  }
  others.clear();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace tptrain::data
