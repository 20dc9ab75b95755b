// What goes over dp beside the model's work: when it sets out, that it is waited for, and that it
// changes no bit.
#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

bool updates_shards(const Setup& setup) { return setup.stage > 0; }

void check_nothing_in_flight(const GridRun& grid) {
  CHECK(grid.late_dp.open_reduce_scatters() == 0);
  CHECK(grid.late_dp.open_all_gathers() == 0);
  INFO(join(grid.late_dp.complaints(), "\n"));
  CHECK(grid.late_dp.complaints().empty());
}

}  // namespace

TEST_CASE("however late a collective takes place, the bits are the same", "[zero][ranks:2+]") {
  for (const Setup& fp32 : late_setups()) {
    Setup bf16 = fp32;
    bf16.dtype = at::kBFloat16;
    bf16.reduce_dtype = at::kBFloat16;
    for (const Setup& setup : {fp32, bf16}) {
      INFO(setup.text());
      Setup at_once = setup;
      at_once.late = false;
      at_once.announces_last = false;
      GridRun late(setup), plain(at_once);
      for (int step = 0; step < 3; ++step) {
        CHECK(late.step(step).norm.item<float>() == plain.step(step).norm.item<float>());
        check_nothing_in_flight(late);
        if (step == 1) run_forward(late.model, late.zero);
      }
      CHECK(same_bits(late.snapshot(), plain.snapshot()));
      check_nothing_in_flight(late);
    }
  }
}

TEST_CASE("a block's gradients set out when they are complete, beside the next backward",
          "[zero][ranks:2+]") {
  for (const Setup& setup : late_setups()) {
    INFO(setup.text());
    GridRun grid(setup);
    const int micro_batches = kSamples / setup.layout.dp;
    const int64_t all = buckets_between(grid, 0, kHead);
    int micro_batch = -1;
    grid.step(0, {.gradient = [&](int block) {
                if (block == kHead) ++micro_batch;
                INFO("micro-batch " << micro_batch << ", block " << block);
                const bool last = micro_batch == micro_batches - 1;
                const int64_t before = setup.per_micro_batch ? micro_batch * all : 0;
                const int64_t ready = buckets_between(grid, block + 1, kHead);
                const bool leaves = setup.per_micro_batch || last;
                CHECK(grid.late_dp.started_reduce_scatters() == before + (leaves ? ready : 0));
                const int64_t under_way = grid.late_dp.open_reduce_scatters();
                if (leaves && block < kHead)
                  CHECK(under_way >= buckets_between(grid, block + 1, block + 1));
                // Memory of its own: nothing waits for it before the end of the step.
                if (setup.stage == 1 && !setup.per_micro_batch && last) CHECK(under_way == ready);
              }});
    CHECK(grid.late_dp.started_reduce_scatters() ==
          (setup.per_micro_batch ? micro_batches : 1) * all);
    check_nothing_in_flight(grid);
  }
}

TEST_CASE("an update's parameters are gathered beside the forward, two blocks ahead",
          "[zero][ranks:2+]") {
  for (const Setup& setup : late_setups()) {
    if (!updates_shards(setup) || setup.stage == 3) continue;
    INFO(setup.text());
    GridRun grid(setup);
    grid.step(0);
    const int64_t before = grid.late_dp.started_all_gathers();
    int next = 0;
    run_forward(
        grid.model, grid.zero, {.use = [&](int block) {
          if (block != next) return;  // the tied head's table
          ++next;
          const int ahead = std::min(block + 2, kHead);
          INFO("block " << block);
          CHECK(grid.late_dp.started_all_gathers() - before == buckets_between(grid, 0, ahead));
          CHECK(grid.late_dp.open_all_gathers() == buckets_between(grid, block + 1, ahead));
        }});
    CHECK(next == kBlocks);
    check_nothing_in_flight(grid);
  }
}

TEST_CASE("parameters are gathered once an update, whatever uses them first and however often",
          "[zero][ranks:2+]") {
  for (const Setup& setup : late_setups()) {
    if (!updates_shards(setup) || setup.stage == 3) continue;
    INFO(setup.text());
    GridRun grid(setup);
    const int64_t all = buckets_between(grid, 0, kHead);
    const auto gathers = [&](const auto& action) {
      const int64_t before = grid.late_dp.started_all_gathers();
      action();
      return grid.late_dp.started_all_gathers() - before;
    };
    const auto evaluation = [&] { run_forward(grid.model, grid.zero); };
    const auto audit = [&] { grid.zero.state().hash_parameters(); };
    const auto everything = [&] { grid.zero.state().gather_parameters(); };
    const auto training = [&] {
      grid.zero.prepare_step(0.1);
      grid.zero.begin_step();
      run_samples_of(grid.model, grid.zero, 1, grid.buckets.dp());
    };
    const auto finish = [&] {
      grid.zero.finish_reduction();
      grid.zero.clip(1.0, at::zeros({0}));
      grid.zero.update();
    };
    const auto loading = [&] {
      grid.zero.state().state_dict();
      grid.zero.state().state_loaded(1);
    };
    CHECK(gathers(audit) == all);
    CHECK(gathers(training) == 0);
    CHECK(gathers(finish) == 0);
    CHECK(gathers(training) == all);
    CHECK(gathers(evaluation) == 0);
    CHECK(gathers(finish) == 0);
    CHECK(gathers(evaluation) == all);
    CHECK(gathers(evaluation) == 0);
    CHECK(gathers(audit) == 0);
    CHECK(gathers(training) == 0);
    CHECK(gathers(finish) == 0);
    CHECK(gathers(loading) == 0);
    CHECK(gathers(everything) == all);
    CHECK(gathers(everything) == 0);
    CHECK(gathers(evaluation) == 0);
    check_nothing_in_flight(grid);
  }
}

TEST_CASE("assume_updated: the next step communicates what every step does, to the same bits",
          "[zero][ranks:2+]") {
  for (const Setup& setup : late_setups()) {
    INFO(setup.text());
    GridRun grid(setup), plain(setup);
    const auto started = [&](int step) {
      const int64_t before = grid.late_dp.started_all_gathers();
      grid.step(step);
      return grid.late_dp.started_all_gathers() - before;
    };
    grid.zero.assume_updated();  // as before a capture
    const int64_t first = started(0);
    run_forward(grid.model, grid.zero);
    grid.zero.assume_updated();
    CHECK(started(1) == first);
    grid.zero.assume_updated();
    CHECK(started(2) == first);
    for (int step = 0; step < 3; ++step) plain.step(step);
    CHECK(same_bits(grid.snapshot(), plain.snapshot()));
    check_nothing_in_flight(grid);
  }
}

}  // namespace tptrain::testing
