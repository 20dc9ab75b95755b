#include "train/cadence.h"

#include "support/catch.h"

namespace tptrain::train {
namespace {

TEST_CASE("what is due by steps and by epochs, and how often, agree with one another") {
  CHECK_FALSE(Cadence{}.due(0));
  CHECK_FALSE(Cadence{}.due(5));
  for (const int64_t sequences : {1, 7, 8, 20, 101}) {
    for (const int64_t every_epochs : {0, 1, 3}) {
      for (const int64_t every_steps : {0, 1, 4}) {
        const Cadence cadence = {.every_steps = every_steps,
                                 .every_epochs = every_epochs,
                                 .global_batch = 8,
                                 .sequences = sequences};
        int64_t times = 0;
        int64_t epochs = 0;
        for (int64_t step = 1; step <= 60; ++step) {
          const int64_t passed = every_epochs > 0 ? step * 8 / sequences / every_epochs : 0;
          const bool by_epochs = passed > epochs;
          epochs = passed;
          const bool due = by_epochs || (every_steps > 0 && step % every_steps == 0);
          times += due ? 1 : 0;
          INFO(sequences << " " << every_epochs << " " << every_steps << " " << step);
          CHECK(cadence.due(step) == due);
          CHECK(cadence.times(step) == times);
        }
        CHECK(cadence.left(60, 60) == 0);
        CHECK(cadence.left(0, 60) == times + (cadence.due(60) ? 0 : 1));
      }
    }
  }
}

}  // namespace
}  // namespace tptrain::train
