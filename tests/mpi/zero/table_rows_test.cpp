// The look-up's share of a table's gradient travels as rows: whatever else is under way, in the
// same bits; beside a tied head's share, which left before; and a bad row is found where it is.
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using sharding::StateKind;

std::vector<Setup> setups() {
  std::vector<Setup> result = late_setups();
  for (Setup& setup : result) setup.looks_up = true;
  return result;
}

}  // namespace

TEST_CASE("rows of a look-up: however late a collective takes place, the bits are the same",
          "[zero][ranks:2+]") {
  for (const Setup& fp32 : setups()) {
    Setup bf16 = fp32;
    bf16.dtype = at::kBFloat16;
    bf16.reduce_dtype = at::kBFloat16;
    for (const Setup& setup : {fp32, bf16}) {
      INFO(setup.text());
      Setup at_once = setup;
      at_once.late = false;
      GridRun late(setup), plain(at_once);
      for (int step = 0; step < 3; ++step) {
        CHECK(late.step(step).norm.item<float>() == plain.step(step).norm.item<float>());
        if (step == 1) run_forward(late.model, late.zero);
      }
      CHECK(same_bits(late.snapshot(), plain.snapshot()));
      CHECK(late.late_dp.open_reduce_scatters() == 0);
      CHECK(late.late_dp.open_all_gathers() == 0);
      INFO(join(late.late_dp.complaints(), "\n"));
      CHECK(late.late_dp.complaints().empty());
    }
  }
}

TEST_CASE("a table that rows travel beside leaves with the head, or not at all",
          "[zero][ranks:2+]") {
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    GridRun grid(setup);
    const int micro_batches = kSamples / setup.layout.dp;
    // The head's buckets and, where there is anything in it, the table.
    const bool has_share =
        setup.head == Head::tied || (!setup.per_micro_batch && micro_batches > 1);
    const int64_t of_head = setup.head == Head::tied ? 1 : 2;
    int micro_batch = -1;
    int64_t before = 0;
    grid.step(0, {.gradient = [&](int block) {
                if (block == kHead) {
                  ++micro_batch;
                  before = grid.late_dp.started_reduce_scatters();
                }
                if (block != kHead - 1) return;
                INFO("micro-batch " << micro_batch);
                const bool leaves = setup.per_micro_batch || micro_batch == micro_batches - 1;
                CHECK(grid.late_dp.started_reduce_scatters() - before ==
                      (leaves ? of_head + (has_share ? 1 : 0) : 0));
              }});
    CHECK(micro_batch == micro_batches - 1);
  }
}

TEST_CASE("a look-up finds the rows of the last update, the table on its way or not",
          "[zero][ranks:2+]") {
  for (Setup setup : setups()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      setup.dtype = dtype;
      INFO(setup.text());
      GridRun grid(setup);
      const parameters::Parameter& table = *grid.model.blocks[0].parameters[0];
      const sharding::ShardSpec& spec = table.slices[0].spec;
      for (int step = 0; step < 3; ++step) {
        std::vector<std::string> complaints;
        at::Tensor expected = grid.assembled(sharding::kMaster, complaints)
                                  .front()
                                  .view({-1, table.shape[1]})
                                  .to(dtype);
        at::Tensor elsewhere = at::ones({expected.size(0), 1}, at::kBool);
        elsewhere.narrow(0, spec.begin, table.shape[0]).fill_(false);
        expected = expected.masked_fill(elsewhere, 0).index_select(0, lookup_ids());
        int look_ups = 0;
        grid.step(step, {.found = [&](const at::Tensor& rows) {
                    ++look_ups;
                    CHECK(at::equal(rows, expected));
                  }});
        CHECK(look_ups == kSamples / setup.layout.dp);
      }
    }
  }
}

TEST_CASE("the table of a look-up that did without it comes behind the first blocks",
          "[zero][ranks:2+]") {
  for (const Setup& setup : setups()) {
    if (setup.stage != 1 && setup.stage != 2) continue;
    INFO(setup.text());
    GridRun grid(setup);
    grid.step(0);
    const int64_t before = grid.late_dp.started_all_gathers();
    bool first = true;
    grid.step(1, {.use = [&](int block) {
                if (!first || block > 2) return;
                first = block != 2;
                INFO("block " << block);
                // The ids; of block 0, which is the table alone, nothing; then two blocks ahead.
                const int64_t of_blocks = buckets_between(grid, 0, std::min(block + 2, kHead)) - 1;
                CHECK(grid.late_dp.started_all_gathers() - before ==
                      1 + of_blocks + (block == 2 ? 1 : 0));
              }});
    CHECK_FALSE(first);
  }
}

TEST_CASE("a row that is not finite is named and leaves every rank as it was", "[zero][ranks:2+]") {
  const bool poisoned = session().rank() == session().size() - 1;
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    GridRun grid(setup), clean(setup);
    grid.step(0);
    clean.step(0);
    const std::vector<at::Tensor> before = grid.snapshot();
    const float bad = setup.stage % 2 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                           : std::numeric_limits<float>::infinity();
    const zero::StepNumbers numbers = grid.step(1, {.rows = [&](at::Tensor& rows) {
                                                  if (poisoned) rows[2][3].fill_(bad);
                                                }});
    CHECK_FALSE(numbers.finite.item<bool>());
    const auto culprit = numbers.culprit.item<int64_t>();
    if (poisoned) {
      REQUIRE(culprit >= 0);
      CHECK(grid.buckets.parameter_name(culprit) == "embed");
    } else {
      CHECK(culprit == -1);
    }
    CHECK(same_bits(before, grid.snapshot()));
    grid.step(2);
    clean.step(2);
    CHECK(same_bits(clean.snapshot(), grid.snapshot()));
  }
}

TEST_CASE("a backward that keeps its rows to itself is refused", "[zero][ranks:2+]") {
  for (const Setup& setup : setups()) {
    INFO(setup.text());
    GridRun grid(setup);
    grid.model.looks_up = false;  // adds to main_grad instead
    std::string message;
    try {
      grid.step(0);
    } catch (const InternalError& error) {
      message = error.what();
    }
    CHECK(message ==
          "internal error: a micro-batch's backward without the rows of its look-up: it must give "
          "them to add_table_rows().");
    // What others wait for: nothing; all ranks left at the same place.
  }
}

TEST_CASE("rows and tables of gradients give one training within rounding", "[zero][ranks:2+]") {
  for (Setup setup : setups()) {
    INFO(setup.text());
    GridRun as_rows(setup);
    setup.looks_up = false;
    GridRun as_table(setup);
    std::vector<std::string> complaints;
    for (int step = 0; step < 2; ++step) {
      as_rows.step(step);
      as_table.step(step);
      const auto a = as_rows.gradient(complaints), b = as_table.gradient(complaints);
      for (size_t i = 0; i < a.size(); ++i) CHECK(relative_difference(a[i], b[i]) < 1e-6);
    }
    CHECK(complaints.empty());
  }
}

}  // namespace tptrain::testing
