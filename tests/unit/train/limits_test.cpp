// What ends a training before its last step: the time, and evaluations that do not get better.
#include <cmath>

#include "support/catch.h"
#include "train/best_loss.h"
#include "train/time_limit.h"

namespace tptrain::train {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
constexpr TimeLimit::Time kStart{std::chrono::hours(1000)};

}  // namespace

TEST_CASE("the time is up when twice a step and a save no longer fit", "[train]") {
  const TimeLimit limit({.process_start = kStart, .max_time_s = 600.0});
  CHECK(limit.reason() == "train.max_time");
  CHECK_FALSE(limit.is_up(kStart + seconds(570), 5, 9));
  CHECK(limit.is_up(kStart + seconds(572), 5, 9));
  CHECK(limit.is_up(kStart + seconds(700), 0, 0));
}

TEST_CASE("the scheduler's end counts where it is the earlier one, ten seconds before it",
          "[train]") {
  const TimeLimit job(
      {.process_start = kStart, .max_time_s = 3600.0, .job_end = kStart + minutes(10)});
  CHECK(job.reason() == "the end of the Slurm job");
  CHECK_FALSE(job.is_up(kStart + seconds(589), 0, 0));
  CHECK(job.is_up(kStart + seconds(590), 0, 0));
  const TimeLimit own(
      {.process_start = kStart, .max_time_s = 60.0, .job_end = kStart + minutes(10)});
  CHECK(own.reason() == "train.max_time");
  CHECK_FALSE(TimeLimit({.process_start = kStart}).is_up(kStart + minutes(100000), 100, 100));
}

TEST_CASE("patience counts evaluations since the best", "[train]") {
  BestLoss best(2);
  CHECK_FALSE(best.is_out_of_patience());
  best.add(0, NAN);
  CHECK_FALSE(best.best());
  best.add(10, 3.0);
  best.add(20, 2.0);
  best.add(30, 2.0);  // not lower
  CHECK_FALSE(best.is_out_of_patience());
  best.add(40, NAN);
  CHECK(best.is_out_of_patience());
  CHECK(best.best()->step == 20);
  CHECK(best.best()->loss == 2.0);
  best.add(50, 1.0);
  CHECK_FALSE(best.is_out_of_patience());
  BestLoss endless(0);
  for (int i = 0; i < 100; ++i) endless.add(i, 1.0);
  CHECK_FALSE(endless.is_out_of_patience());
}

}  // namespace tptrain::train
