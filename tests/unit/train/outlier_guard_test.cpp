// Which steps are outliers, and what a checkpoint keeps of that.
#include "train/outlier_guard.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using namespace tptrain::train;

constexpr config::GuardConfig kGuard{
    .action = GuardAction::skip, .window = 5, .threshold = 10, .limit = 2};

OutlierGuard filled(int64_t steps) {
  OutlierGuard guard(kGuard);
  for (int64_t step = 1; step <= steps; ++step)
    guard.add(step, 2.0 + 0.1 * static_cast<double>(step % 3), 1.0);
  return guard;
}

}  // namespace

TEST_CASE("the bound is the median and so many robust deviations") {
  // Median 3, distances 2 1 0 1 2, their median 1.
  CHECK(outlier_bound({1, 2, 3, 4, 5}, 10) == Approx(3 + 10 * 1.4826));
  // One wild value moves neither.
  CHECK(outlier_bound({1, 2, 3, 4, 1e9}, 10) == Approx(3 + 10 * 1.4826));
  CHECK(outlier_bound({1, 2, 3, 4}, 1) == Approx(2.5 + 1.4826));
  // Values that hardly differ: a hundredth of the median.
  CHECK(outlier_bound({2, 2, 2}, 10) == Approx(2.2));
}

TEST_CASE("a step is judged by the window up to the one before its predecessor") {
  CHECK(std::isinf(filled(5).bounds_for(6).loss));  // steps 1 to 4 are known when 6 begins
  const OutlierGuard::Bounds bounds = filled(5).bounds_for(7);
  CHECK(bounds.norm == Approx(1.1f));
  // Steps 1 to 5: 2.1 2.2 2.0 2.1 2.2.
  CHECK(bounds.loss == Approx(2.1 + 10 * 1.4826 * 0.1));
  // Whether later numbers have been read already changes nothing.
  CHECK(filled(6).bounds_for(7).loss == bounds.loss);
}

TEST_CASE("a guard goes on exactly where a checkpoint left it") {
  OutlierGuard guard = filled(9);
  CHECK(guard.count_outlier());
  guard.rolled_back(guard.outliers(), 7);
  OutlierGuard restored(kGuard);
  restored.restore(guard.to_text(), "step-7");
  CHECK(restored.to_text() == guard.to_text());
  CHECK(restored.passed_over() == 7);
  CHECK(restored.outliers() == 1);
  for (const int64_t step : {9, 10, 11})
    CHECK(restored.bounds_for(step).loss == guard.bounds_for(step).loss);
  CHECK(restored.count_outlier());
  CHECK_FALSE(restored.count_outlier());  // the third of at most two
  restored.restore("", "");
  CHECK(restored.outliers() == 0);
  for (const char* text : {"{}", "[1"}) {
    const std::string message = testing::message_of<CheckpointError>(
        [&] { restored.restore(text, "run/checkpoints/step-00000007"); });
    CHECK(testing::has(message, "run/checkpoints/step-00000007: what it keeps of train.guard"));
    CHECK(testing::has(message, "Resume from another checkpoint."));
  }
}

TEST_CASE("a guard that is off keeps nothing") {
  OutlierGuard guard(config::GuardConfig{});
  guard.add(1, 2, 3);
  CHECK_FALSE(guard.is_on());
  CHECK_FALSE(guard.has_state());
}

}  // namespace tptrain::testing
