// How often each stage communicates: by block and bucket, never by parameter, and nothing twice.
#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

struct Counts {
  comm::CommCounters tp, dp;
};

Counts counts_of(GridRun& grid) { return {grid.mesh.tp().counters(), grid.mesh.dp().counters()}; }

Counts since(GridRun& grid, const Counts& before) {
  Counts now = counts_of(grid);
  const auto subtract = [](comm::CommCounters& a, const comm::CommCounters& b) {
    a.all_reduces -= b.all_reduces;
    a.reduce_scatters -= b.reduce_scatters;
    a.all_gathers -= b.all_gathers;
    a.broadcasts -= b.broadcasts;
    a.bytes -= b.bytes;
  };
  subtract(now.tp, before.tp);
  subtract(now.dp, before.dp);
  return now;
}

int64_t buckets_of(const GridRun& grid, std::initializer_list<int> blocks) {
  int64_t count = 0;
  for (const int block : blocks) {
    for (const zero::Bucket& bucket : grid.buckets.buckets()) count += bucket.block == block;
  }
  return count;
}

// Blocks with something to sum over tp: at tp 4 copies in every layer.
int64_t tp_sums(const GridRun& grid) {
  if (grid.setup.layout.tp == 1) return 0;
  return grid.setup.layout.tp == 4 ? 4 : 2;
}

}  // namespace

TEST_CASE("a step's collectives: one a bucket and way, one for the numbers an axis", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const bool per_micro_batch : {false, true}) {
        if (stage >= 2 && !per_micro_batch) continue;
        const Setup setup{.layout = layout, .stage = stage, .per_micro_batch = per_micro_batch};
        INFO(setup.text());
        GridRun grid(setup);
        const int64_t buckets = static_cast<int64_t>(grid.buckets.buckets().size());
        const int64_t reductions = per_micro_batch ? kSamples / layout.dp : 1;
        const Counts before = counts_of(grid);
        grid.step(0);
        const Counts step = since(grid, before);
        const bool over_dp = layout.dp > 1;
        CHECK(step.dp.reduce_scatters == (over_dp ? buckets * reductions : 0));
        CHECK(step.tp.all_reduces == tp_sums(grid) * reductions);
        CHECK(step.tp.all_gathers == (layout.tp > 1 ? 1 : 0));
        CHECK(step.tp.reduce_scatters + step.tp.broadcasts == 0);
        CHECK(step.dp.all_reduces + step.dp.broadcasts == 0);
        // Stage 0 gathers gradients, 1 and 2 parameters; 3 is another test's.
        if (stage < 3) CHECK(step.dp.all_gathers == (over_dp ? buckets + 1 : 0));
      }
    }
  }
}

TEST_CASE("stage 3 gathers a block once a way, and none that a slot still holds",
          "[zero][ranks:2+]") {
  for (const Layout& layout : layouts()) {
    if (layout.dp == 1) continue;
    for (const Head head : {Head::own_table, Head::tied}) {
      const Setup setup{.layout = layout, .stage = 3, .head = head};
      INFO(setup.text());
      GridRun grid(setup);
      const auto gathers = [&](const auto& action) {
        const Counts before = counts_of(grid);
        action();
        return since(grid, before).dp.all_gathers;
      };
      const bool tied = head == Head::tied;
      const auto forward = [&] { run_forward(grid.model, grid.zero); };
      // Forward: all L + 2 = 5 blocks. Slots: ends, layers 0 and 2, layer 1.
      CHECK(gathers(forward) == buckets_of(grid, {0, 1, 2, 3, 4}));
      // Again: layer 1's slot still holds it, and a tied model's ends keep theirs; layers 0 and 2
      // take turns.
      const int64_t again = tied ? buckets_of(grid, {1, 3}) : buckets_of(grid, {0, 1, 3, 4});
      CHECK(gathers(forward) == again);

      grid.zero.prepare_step(0.1);
      grid.zero.begin_step();
      // Its backward finds the head and layers 2 and 1 in their slots and gathers layer 0; the
      // look-up's reads no table.
      CHECK(gathers([&] { run_micro_batch(grid.model, grid.zero, 0, 0); }) ==
            again + buckets_of(grid, {1}));
      // The next forward finds layers 0 and 1.
      CHECK(gathers(forward) == (tied ? buckets_of(grid, {3}) : buckets_of(grid, {0, 3, 4})));
      grid.zero.finish_reduction();
      grid.zero.clip(0, at::zeros({0}));
      CHECK(gathers([&] { grid.zero.update(); }) == 0);
      // New values: everything anew.
      CHECK(gathers(forward) == buckets_of(grid, {0, 1, 2, 3, 4}));
    }
  }
}

TEST_CASE("bf16 halves what goes over dp", "[zero][ranks:2+]") {
  for (const Layout& layout : layouts()) {
    if (layout.dp == 1) continue;
    for (const int stage : {1, 2, 3}) {
      Setup setup{.layout = layout, .stage = stage, .per_micro_batch = true};
      GridRun fp32(setup);
      setup.dtype = at::kBFloat16;
      setup.reduce_dtype = at::kBFloat16;
      GridRun bf16(setup);
      const Counts before_fp32 = counts_of(fp32), before_bf16 = counts_of(bf16);
      fp32.step(0);
      bf16.step(0);
      const int64_t words = 5 * 8 * layout.dp;  // square sums, flag and two losses in fp64
      // Of two matrices of three layers, where they are bf16.
      const int64_t magnitudes = 4 * 2 * 3 * layout.dp;
      CHECK((since(fp32, before_fp32).dp.bytes - words) ==
            2 * (since(bf16, before_bf16).dp.bytes - words - magnitudes));
    }
  }
}

}  // namespace tptrain::testing
