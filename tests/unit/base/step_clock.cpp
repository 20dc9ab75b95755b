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

TEST_CASE("what is inside a phase is no part of it, and all phases are the whole") {
  StepClock clock;
  const auto begin = std::chrono::steady_clock::now();
  {
    const StepClock::In step(&clock, StepPhase::forward_backward);
    std::this_thread::sleep_for(kWhile);
    {
      const StepClock::In collective(&clock, StepPhase::communication);
      std::this_thread::sleep_for(kWhile);
    }
    std::this_thread::sleep_for(kWhile);
  }
  const StepClock::Seconds seconds = clock.take();
  const double all =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  CHECK(of(seconds, StepPhase::communication) >= kWhileS);
  CHECK(of(seconds, StepPhase::forward_backward) >= 2 * kWhileS);
  CHECK(of(seconds, StepPhase::forward_backward) <=
        all - of(seconds, StepPhase::communication) + 1e-3);
  CHECK(std::accumulate(seconds.begin(), seconds.end(), 0.0) == Approx(all).margin(1e-3));
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
