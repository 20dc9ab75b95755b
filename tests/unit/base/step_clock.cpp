// Where a step's time goes: each moment counts once, for the innermost phase.
#include "base/step_clock.h"

#include <chrono>
#include <numeric>
#include <thread>

#include "support/catch.h"

namespace tptrain {
namespace {

constexpr auto kWhile = std::chrono::milliseconds(20);
constexpr double kWhileS = 0.020;

double of(const StepClock::Seconds& seconds, StepPhase phase) {
  return seconds[static_cast<size_t>(phase)];
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST_CASE("what is inside a phase is no part of it, and all phases are the whole") {
  const auto begin = std::chrono::steady_clock::now();
  StepClock clock;
  double inside = 0;
  {
    const StepClock::In step(&clock, StepPhase::forward_backward);
    const auto begun = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(kWhile);
    {
      const StepClock::In collective(&clock, StepPhase::communication);
      std::this_thread::sleep_for(kWhile);
    }
    std::this_thread::sleep_for(kWhile);
    inside = seconds_since(begun);
  }
  const StepClock::Seconds seconds = clock.take();
  const double around = seconds_since(begin);
  CHECK(of(seconds, StepPhase::communication) >= kWhileS);
  CHECK(of(seconds, StepPhase::forward_backward) >= 2 * kWhileS);
  // A busy machine may stop this thread anywhere, between the clocks' readings too.
  const double all = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  CHECK(all >= inside - 1e-6);
  CHECK(all <= around + 1e-6);
  const double phases =
      of(seconds, StepPhase::forward_backward) + of(seconds, StepPhase::communication);
  CHECK(phases >= inside - 1e-6);
  CHECK(phases + of(seconds, StepPhase::other) == Approx(all));
  CHECK(of(clock.take(), StepPhase::communication) == 0);  // it begins anew
}

TEST_CASE("a phase that goes on over take() counts on both sides; no clock is no work") {
  StepClock clock;
  {
    const StepClock::In data(&clock, StepPhase::data);
    std::this_thread::sleep_for(kWhile);
    CHECK(of(clock.take(), StepPhase::data) >= kWhileS);
    std::this_thread::sleep_for(kWhile);
  }
  CHECK(of(clock.take(), StepPhase::data) >= kWhileS);
  const StepClock::In none(nullptr, StepPhase::data);
}

}  // namespace
}  // namespace tptrain
