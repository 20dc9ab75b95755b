#include "optim/schedule.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "support/catch.h"

using tptrain::config::SchedulerConfig;
using tptrain::optim::LearningRateSchedule;

namespace {

bool near(double received, double expected) { return std::abs(received - expected) < 1e-12; }

}  // namespace

TEST_CASE("constant stays at the peak, also beyond the end", "[optim]") {
  const LearningRateSchedule schedule({.type = "constant"}, 0.5, 10);
  for (const int64_t step : {0, 5, 9, 10, 1000}) CHECK(schedule.learning_rate(step) == 0.5);
}

TEST_CASE("warm-up rises linearly and never starts at zero", "[optim]") {
  for (const std::string type : {"constant", "linear", "cosine"}) {
    const LearningRateSchedule schedule({.type = type, .warmup_steps = 4, .min_lr = 0.1}, 1.0, 20);
    CHECK(near(schedule.learning_rate(0), 0.2));
    CHECK(near(schedule.learning_rate(1), 0.4));
    CHECK(near(schedule.learning_rate(3), 0.8));
    CHECK(schedule.learning_rate(4) == 1.0);
  }
}

TEST_CASE("linear and cosine fall from the peak to min_lr at max_steps and stay there", "[optim]") {
  const LearningRateSchedule linear({.type = "linear", .warmup_steps = 2, .min_lr = 0.2}, 1.0, 12);
  CHECK(linear.learning_rate(2) == 1.0);
  CHECK(near(linear.learning_rate(7), 0.6));
  CHECK(near(linear.learning_rate(11), 0.28));
  const LearningRateSchedule cosine({.type = "cosine", .warmup_steps = 2, .min_lr = 0.2}, 1.0, 12);
  CHECK(cosine.learning_rate(2) == 1.0);
  CHECK(near(cosine.learning_rate(7), 0.6));
  CHECK(near(cosine.learning_rate(4), 0.2 + 0.8 * 0.90450849718747));  // (1 + cos(pi / 5)) / 2
  for (const LearningRateSchedule& schedule : {linear, cosine}) {
    for (const int64_t step : {12, 13, 100000}) CHECK(schedule.learning_rate(step) == 0.2);
  }
}

TEST_CASE("a warm-up as long as the run, or longer, goes straight to min_lr after it", "[optim]") {
  for (const std::string type : {"linear", "cosine"}) {
    const LearningRateSchedule equal({.type = type, .warmup_steps = 5, .min_lr = 0.1}, 1.0, 5);
    CHECK(near(equal.learning_rate(4), 5.0 / 6.0));
    CHECK(equal.learning_rate(5) == 0.1);
    const LearningRateSchedule longer({.type = type, .warmup_steps = 9, .min_lr = 0.1}, 1.0, 5);
    CHECK(near(longer.learning_rate(8), 0.9));
    CHECK(longer.learning_rate(9) == 0.1);
  }
}

TEST_CASE("a single step trains at the peak", "[optim]") {
  for (const std::string type : {"constant", "linear", "cosine"}) {
    CHECK(near(LearningRateSchedule({.type = type}, 0.3, 1).learning_rate(0), 0.3));
  }
}

TEST_CASE("an unknown scheduler is refused with its name and the known ones", "[optim]") {
  try {
    LearningRateSchedule({.type = "sawtooth"}, 1.0, 10);
    FAIL("accepted");
  } catch (const tptrain::ConfigError& error) {
    const std::string message = error.what();
    CHECK(message.find("scheduler.type is sawtooth") != std::string::npos);
    CHECK(message.find("constant, linear or cosine") != std::string::npos);
  }
}
