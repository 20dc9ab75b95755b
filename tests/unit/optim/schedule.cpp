#include "optim/schedule.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "support/catch.h"

using tptrain::config::Schedule;
using tptrain::config::SchedulerConfig;
using tptrain::optim::LearningRateSchedule;

namespace {

bool near(double received, double expected) { return std::abs(received - expected) < 1e-12; }

}  // namespace

TEST_CASE("constant stays at the peak, also beyond the end", "[optim]") {
  const LearningRateSchedule schedule({.type = Schedule::constant}, 0.5, 10);
  for (const int64_t step : {0, 5, 9, 10, 1000}) CHECK(schedule.learning_rate(step) == 0.5);
}

TEST_CASE("warm-up rises linearly and never starts at zero", "[optim]") {
  for (const Schedule type :
       {Schedule::constant, Schedule::linear, Schedule::cosine, Schedule::wsd}) {
    const LearningRateSchedule schedule({.type = type, .warmup_steps = 4, .min_lr = 0.1}, 1.0, 20);
    CHECK(near(schedule.learning_rate(0), 0.2));
    CHECK(near(schedule.learning_rate(1), 0.4));
    CHECK(near(schedule.learning_rate(3), 0.8));
    CHECK(schedule.learning_rate(4) == 1.0);
  }
}

TEST_CASE("linear and cosine fall from the peak to min_lr at max_steps and stay there", "[optim]") {
  const LearningRateSchedule linear({.type = Schedule::linear, .warmup_steps = 2, .min_lr = 0.2},
                                    1.0, 12);
  CHECK(linear.learning_rate(2) == 1.0);
  CHECK(near(linear.learning_rate(7), 0.6));
  CHECK(near(linear.learning_rate(11), 0.28));
  const LearningRateSchedule cosine({.type = Schedule::cosine, .warmup_steps = 2, .min_lr = 0.2},
                                    1.0, 12);
  CHECK(cosine.learning_rate(2) == 1.0);
  CHECK(near(cosine.learning_rate(7), 0.6));
  CHECK(near(cosine.learning_rate(4), 0.2 + 0.8 * 0.90450849718747));  // (1 + cos(pi / 5)) / 2
  for (const LearningRateSchedule& schedule : {linear, cosine}) {
    for (const int64_t step : {12, 13, 100000}) CHECK(schedule.learning_rate(step) == 0.2);
  }
}

TEST_CASE("wsd stays at the peak and falls linearly over the last decay_steps", "[optim]") {
  const LearningRateSchedule schedule(
      {.type = Schedule::wsd, .warmup_steps = 2, .decay_steps = 4, .min_lr = 0.2}, 1.0, 12);
  CHECK(near(schedule.learning_rate(1), 2.0 / 3.0));
  for (const int64_t step : {2, 5, 7, 8}) CHECK(schedule.learning_rate(step) == 1.0);
  CHECK(near(schedule.learning_rate(9), 0.8));
  CHECK(near(schedule.learning_rate(10), 0.6));
  CHECK(near(schedule.learning_rate(11), 0.4));
  for (const int64_t step : {12, 13, 100000}) CHECK(schedule.learning_rate(step) == 0.2);
}

TEST_CASE("wsd falls over a tenth of the steps, at least one, where decay_steps is 0", "[optim]") {
  using tptrain::optim::wsd_decay_steps;
  CHECK(wsd_decay_steps({.type = Schedule::wsd}, 1000) == 100);
  CHECK(wsd_decay_steps({.type = Schedule::wsd}, 19) == 1);
  CHECK(wsd_decay_steps({.type = Schedule::wsd}, 3) == 1);
  CHECK(wsd_decay_steps({.type = Schedule::wsd, .decay_steps = 7}, 1000) == 7);
  const LearningRateSchedule open({.type = Schedule::wsd}, 1.0, 100);
  const LearningRateSchedule said({.type = Schedule::wsd, .decay_steps = 10}, 1.0, 100);
  for (int64_t step = 0; step < 110; ++step)
    CHECK(open.learning_rate(step) == said.learning_rate(step));
  CHECK(open.learning_rate(90) == 1.0);
  CHECK(near(open.learning_rate(99), 0.1));
}

TEST_CASE("wsd that falls over the whole run is linear, also behind a warm-up", "[optim]") {
  for (const int64_t warmup : {0, 3}) {
    const LearningRateSchedule wsd(
        {.type = Schedule::wsd, .warmup_steps = warmup, .decay_steps = 12, .min_lr = 0.1}, 1.0, 12);
    const LearningRateSchedule linear(
        {.type = Schedule::linear, .warmup_steps = warmup, .min_lr = 0.1}, 1.0, 12);
    for (int64_t step = 0; step < 15; ++step)
      CHECK(wsd.learning_rate(step) == linear.learning_rate(step));
  }
}

TEST_CASE("a warm-up as long as the run, or longer, goes straight to min_lr after it", "[optim]") {
  for (const Schedule type : {Schedule::linear, Schedule::cosine, Schedule::wsd}) {
    const LearningRateSchedule equal({.type = type, .warmup_steps = 5, .min_lr = 0.1}, 1.0, 5);
    CHECK(near(equal.learning_rate(4), 5.0 / 6.0));
    CHECK(equal.learning_rate(5) == 0.1);
    const LearningRateSchedule longer({.type = type, .warmup_steps = 9, .min_lr = 0.1}, 1.0, 5);
    CHECK(near(longer.learning_rate(8), 0.9));
    CHECK(longer.learning_rate(9) == 0.1);
  }
}

TEST_CASE("a single step trains at the peak", "[optim]") {
  for (const Schedule type :
       {Schedule::constant, Schedule::linear, Schedule::cosine, Schedule::wsd}) {
    CHECK(near(LearningRateSchedule({.type = type}, 0.3, 1).learning_rate(0), 0.3));
  }
}
