// Whether steps are replayed or issued: in which order they are tried, and what counts, on a clock
// that the test sets.
#include "train/graph_trial.h"

#include "support/catch.h"

namespace tptrain::train {
namespace {

using testing::Approx;

class Mark final : public StepMark {
 public:
  explicit Mark(float at) : at_(at) {}
  float ms_since(StepMark& earlier) override { return at_ - static_cast<Mark&>(earlier).at_; }

 private:
  float at_;
};

class Steps {
 public:
  GraphTrial& trial() { return trial_; }
  void make(StepWay way, float ms) {
    now_ += ms;
    trial_.done(way);
  }
  /// A phase: its first step, which is not timed, and the others.
  void make_phase(StepWay way, const std::vector<float>& ms) {
    REQUIRE(ms.size() == GraphTrial::kTimed);
    REQUIRE(trial_.next() == way);
    make(way, 1000);
    for (const float one : ms) make(way, one);
  }

 private:
  float now_ = 0;
  GraphTrial trial_ = GraphTrial([this] { return std::make_unique<Mark>(now_); });
};

}  // namespace

TEST_CASE("replays are timed before and after issued steps, by the median of each", "[train]") {
  Steps steps;
  steps.make_phase(StepWay::replayed, {10, 11, 90, 9, 10});
  CHECK_FALSE(steps.trial().is_complete());
  steps.make_phase(StepWay::issued, {12, 12, 1, 12, 99});
  steps.make_phase(StepWay::replayed, {14, 14, 14, 14, 14});
  REQUIRE(steps.trial().is_complete());
  const GraphTrial::StepMs ms = steps.trial().step_ms();
  CHECK(ms.issued == Approx(12));
  CHECK(ms.replayed == Approx(12));  // of 10 and 14: the device has grown warm
}

TEST_CASE("a step that goes another way begins its phase anew", "[train]") {
  Steps steps;
  steps.make(StepWay::issued, 500);  // the first of new sizes, always issued
  steps.make(StepWay::replayed, 1000);
  steps.make(StepWay::replayed, 50);
  steps.make(StepWay::issued, 500);
  steps.make_phase(StepWay::replayed, {10, 10, 10, 10, 10});
  steps.make_phase(StepWay::issued, {12, 12, 12, 12, 12});
  steps.make_phase(StepWay::replayed, {10, 10, 10, 10, 10});
  REQUIRE(steps.trial().is_complete());
  CHECK(steps.trial().step_ms().replayed == Approx(10));
}

}  // namespace tptrain::train
