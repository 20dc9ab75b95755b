// A step's AdamW waits for the next forward. Whatever comes between, and whatever a step leaves
// out, sees the update done, once.
#include <functional>

#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

constexpr int kSteps = 3;

std::vector<Setup> setups() {
  std::vector<Setup> result;
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const bool per_micro_batch : {false, true}) {
        if (stage >= 2 && !per_micro_batch) continue;
        const bool bf16 = (stage + (per_micro_batch ? 1 : 0)) % 2 == 1;
        result.push_back({.layout = layout,
                          .stage = stage,
                          .per_micro_batch = per_micro_batch,
                          .head = bf16 ? Head::tied : Head::own_table,
                          .dtype = bf16 ? at::kBFloat16 : at::kFloat,
                          .late = layout.dp > 1});
      }
    }
  }
  return result;
}

// What may come between two steps.
struct Interruption {
  const char* name;
  std::function<void(GridRun&)> run;
};

void run_one_micro_batch(GridRun& grid) {
  run_micro_batch(grid.model, grid.zero, /*step=*/9, /*sample=*/0);
}

std::vector<Interruption> interruptions() {
  return {
      {"nothing", [](GridRun&) {}},
      {"state_dict", [](GridRun& grid) { grid.zero.state().state_dict(); }},
      {"state_loaded",
       [](GridRun& grid) {
         grid.zero.state().state_dict();
         grid.zero.state().state_loaded(grid.zero.state().updates_done());
       }},
      {"an audit", [](GridRun& grid) { grid.zero.state().hash_parameters(); }},
      {"an evaluation", [](GridRun& grid) { run_forward(grid.model, grid.zero); }},
      {"half an evaluation",
       [](GridRun& grid) {
         for (const int block : {0, 1}) {
           grid.observer().before_forward(block);
           grid.observer().after_forward(block);
         }
       }},
      {"gather_parameters",
       [](GridRun& grid) {
         if (grid.setup.stage < 3) grid.zero.state().gather_parameters();
       }},
      {"a step without micro-batches",
       [](GridRun& grid) {
         grid.zero.begin_step();
         grid.zero.finish_reduction();
       }},
      {"a step dropped in its middle",
       [](GridRun& grid) {
         grid.zero.begin_step();
         run_one_micro_batch(grid);
       }},
      {"a step dropped after its forward",
       [](GridRun& grid) {
         grid.zero.begin_step();
         run_forward(grid.model, grid.zero);
       }},
      {"a step dropped after its norm",
       [](GridRun& grid) {
         grid.zero.begin_step();
         run_one_micro_batch(grid);
         grid.zero.finish_reduction();
         grid.zero.clip(1.0, at::zeros({0}));
       }},
      {"a backward without its forward",
       [](GridRun& grid) {
         grid.zero.begin_step();
         for (int block = static_cast<int>(grid.model.blocks.size()) - 1; block >= 0; --block) {
           grid.observer().before_backward(block);
           grid.observer().after_backward(block);
         }
       }},
      {"a state_dict in the middle of a dropped step",
       [](GridRun& grid) {
         grid.zero.begin_step();
         grid.observer().before_forward(0);
         grid.zero.state().state_dict();
       }},
  };
}

}  // namespace

TEST_CASE("whatever comes between steps, the training is the same to the bit", "[zero]") {
  for (const Setup& setup : setups()) {
    GridRun plain(setup);
    for (int step = 0; step < kSteps; ++step) plain.step(step);
    const std::vector<at::Tensor> expected = plain.snapshot();
    for (const Interruption& interruption : interruptions()) {
      for (const bool before_graph : {false, true}) {
        INFO(setup.text() << ", " << interruption.name << (before_graph ? ", a graph" : ""));
        GridRun grid(setup);
        for (int step = 0; step < kSteps; ++step) {
          grid.step(step);
          interruption.run(grid);
          // As before a capture or a replay: the step applies the last update, unless that is done.
          if (before_graph) grid.zero.assume_updated();
        }
        CHECK(grid.zero.state().updates_done() == kSteps);
        CHECK(same_bits(grid.snapshot(), expected));
        INFO(join(grid.late_dp.complaints(), "\n"));
        CHECK(grid.late_dp.complaints().empty());
      }
    }
  }
}

TEST_CASE("a reader between update and forward finds the update done", "[zero]") {
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    std::vector<std::string> complaints;
    GridRun states(setup), hashes(setup), forwards(setup);
    std::vector<at::Tensor> last;
    for (int step = 0; step < kSteps; ++step) {
      for (GridRun* grid : {&states, &hashes, &forwards}) grid->step(step);
      const auto masters = states.assembled(sharding::kMaster, complaints);
      CHECK_FALSE(same_bits(masters, last));
      CHECK(forwards.stale_parameters(masters).empty());
      const auto own = hashes.zero.state().hash_parameters(),
                 theirs = states.zero.state().hash_parameters();
      REQUIRE(own.size() == theirs.size());
      for (size_t i = 0; i < own.size(); ++i) CHECK(own[i].hash == theirs[i].hash);
      last = masters;
    }
    CHECK(complaints.empty());
  }
}

TEST_CASE("a reader between norm and update does not undo what the norm has allowed", "[zero]") {
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    GridRun grid(setup), plain(setup);
    for (int step = 0; step < kSteps; ++step) {
      for (GridRun* run : {&grid, &plain}) {
        run->zero.prepare_step(1e-2);
        run->zero.begin_step();
        run_samples_of(run->model, run->zero, step, run->buckets.dp());
        run->zero.finish_reduction();
        run->zero.clip(1.0, at::zeros({0}));
        if (run == &grid) {
          grid.zero.state().state_dict();
          run_forward(grid.model, grid.zero);
          grid.zero.state().hash_parameters();
        }
        run->zero.update();
      }
    }
    CHECK(grid.zero.state().updates_done() == kSteps);
    CHECK(same_bits(grid.snapshot(), plain.snapshot()));
  }
}

TEST_CASE("gradients stay to be read until the next step's backward", "[zero]") {
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    std::vector<std::string> complaints;
    GridRun grid(setup);
    for (int step = 0; step < 2; ++step) {
      grid.step(step);
      const auto before = grid.gradient(complaints);
      grid.zero.state().state_dict();
      run_forward(grid.model, grid.zero);
      CHECK(same_bits(grid.gradient(complaints), before));
    }
    CHECK(complaints.empty());
  }
}

TEST_CASE("initial values and loaded ones end what an update has left", "[zero]") {
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    GridRun fresh(setup), again(setup);
    again.step(0);
    again.zero.state().initialise(kSeed);
    for (GridRun* grid : {&fresh, &again}) grid->step(1);
    CHECK(same_bits(again.snapshot(), fresh.snapshot()));
  }
}

}  // namespace tptrain::testing
