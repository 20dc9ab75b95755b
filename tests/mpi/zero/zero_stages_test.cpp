// All ZeRO stages on every layout of the world: the same bits as one another, the numbers of one
// rank, one norm everywhere; and each deliberate fault turns the same checks red.
#include <limits>

#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "mpi/zero/stage_comparison.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using sharding::StateKind;
using Fault = ReductionFault;

std::vector<Setup> setups(const Layout& layout) {
  std::vector<Setup> result;
  for (const bool per_micro_batch : {false, true}) {
    for (const Head head : {Head::own_table, Head::tied}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        result.push_back(
            {.layout = layout, .per_micro_batch = per_micro_batch, .head = head, .dtype = dtype});
      }
    }
  }
  for (const bool per_micro_batch : {false, true}) {
    const Setup base{.layout = layout, .per_micro_batch = per_micro_batch, .dtype = at::kBFloat16};
    result.push_back(base);
    result.back().reduce_dtype = at::kBFloat16;
    result.push_back(base);
    result.back().gradient_dtype = at::kBFloat16;
    result.push_back(base);
    result.back().moments = config::Dtype::bf16;
    result.push_back(base);
    result.back().masters = config::Dtype::bf16;
    result.back().head = Head::tied;
    for (const Head head : {Head::own_table, Head::tied}) {
      result.push_back(
          {.layout = layout, .per_micro_batch = per_micro_batch, .head = head, .looks_up = true});
    }
  }
  return result;
}

}  // namespace

TEST_CASE("all stages of one cadence agree bitwise and follow one rank on every layout", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const Setup& setup : setups(layout)) {
      INFO(setup.text());
      const std::vector<std::string> complaints = violations(setup);
      INFO(join(complaints, "\n"));
      CHECK(complaints.empty());
    }
  }
}

TEST_CASE("every deliberate fault turns the comparison red where its axis has ranks", "[zero]") {
  struct Case {
    Fault fault;
    const char* name;
    int dp;  // ranks of the axes from which on it acts
    int tp;
  };
  for (const Case& c : {Case{Fault::scale_dp_sum, "scale_dp_sum", 2, 1},
                        Case{Fault::skip_dp_reduction, "skip_dp_reduction", 2, 1},
                        Case{Fault::double_count_replicated_in_norm, "double_count", 1, 2},
                        Case{Fault::drop_norm_sum_over_tp, "drop_norm_sum_over_tp", 1, 2},
                        Case{Fault::drop_partial_sum_over_tp, "drop_partial_sum", 1, 2},
                        Case{Fault::drop_copies_sum_over_tp, "drop_copies_sum", 1, 4}}) {
    for (const Layout& layout : layouts()) {
      for (const bool per_micro_batch : {false, true}) {
        const Setup setup{.layout = layout, .per_micro_batch = per_micro_batch, .fault = c.fault};
        INFO(c.name << " on " << setup.text());
        const bool acts = layout.dp >= c.dp && layout.tp >= c.tp;
        CHECK(on_any_rank(!violations(setup).empty()) == acts);
      }
    }
  }
}

TEST_CASE("a non-finite number on one rank leaves every rank as it was and is named", "[zero]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const bool poisoned = session().rank() == session().size() - 1;
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      // "layers.2.router" is replicated and whole: on the last rank of tp > 1 the poison sits in a
      // copy that the norm does not count; so does the one in layers.1.qkv, a kv head's, at tp 4.
      for (const std::string name : {"embed", "layers.1.qkv", "layers.2.router", "norm", "loss"}) {
        const Setup setup{
            .layout = layout, .stage = stage, .head = Head::tied, .dtype = at::kBFloat16};
        const float poison = stage % 2 == 0 ? nan : -inf;
        INFO(setup.text() << ", " << poison << " in " << name);
        GridRun grid(setup);
        GridRun clean(setup);
        grid.step(0);
        clean.step(0);
        const std::vector<at::Tensor> before = grid.snapshot();

        const auto poison_gradient = [&](int block) {
          if (!poisoned || name == "loss") return;
          for (const parameters::Parameter* parameter : grid.model.blocks[block].parameters) {
            if (parameter->name == name)
              *(parameter->main_grad.view({-1}).data_ptr<float>() + parameter->numel() - 1) =
                  poison;
          }
        };
        const zero::StepNumbers numbers =
            grid.step(1, {.gradient = poison_gradient}, poisoned && name == "loss" ? poison : 1.0f);
        CHECK_FALSE(numbers.finite.item<bool>());
        const auto culprit = numbers.culprit.item<int64_t>();
        if (!poisoned) {
          CHECK(culprit == -1);
        } else if (name == "loss") {
          CHECK(culprit == -2);
        } else {
          REQUIRE(culprit >= 0);
          CHECK(grid.buckets.parameter_name(culprit) == name);
        }
        CHECK(grid.zero.state().updates_done() == 1);
        CHECK(same_bits(before, grid.snapshot()));

        grid.step(2);  // and the next step goes on as if that one had not been
        clean.step(2);
        CHECK(same_bits(clean.snapshot(), grid.snapshot()));
      }
    }
  }
}

TEST_CASE("the same run twice is bitwise equal", "[zero]") {
  for (const Layout& layout : layouts()) {
    const Setup setup{.layout = layout, .stage = 3, .dtype = at::kBFloat16};
    GridRun first(setup), second(setup);
    for (int step = 0; step < 3; ++step) {
      CHECK(first.step(step).norm.item<float>() == second.step(step).norm.item<float>());
    }
    CHECK(same_bits(first.snapshot(), second.snapshot()));
  }
}

TEST_CASE("an evaluation between steps changes nothing and sees the parameters", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const Head head : {Head::own_table, Head::tied}) {
        const Setup setup{.layout = layout, .stage = stage, .head = head};
        INFO(setup.text());
        GridRun evaluated(setup), plain(setup);
        for (int step = 0; step < 2; ++step) {
          std::vector<std::string> complaints;
          for (int again = 0; again < 3; ++again) {
            const auto master = evaluated.assembled(sharding::kMaster, complaints);
            for (const std::string& text : evaluated.stale_parameters(master))
              complaints.push_back(text);
          }
          INFO(join(complaints, "\n"));
          CHECK(complaints.empty());
          evaluated.step(step);
          plain.step(step);
        }
        CHECK(same_bits(evaluated.snapshot(), plain.snapshot()));
      }
    }
  }
}

TEST_CASE("every use of a parameter in training sees the step's value", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int stage : {1, 3}) {
      for (const Head head : {Head::own_table, Head::tied}) {
        const Setup setup{.layout = layout, .stage = stage, .per_micro_batch = true, .head = head};
        INFO(setup.text());
        GridRun grid(setup);
        // The same training where every block keeps its parameters.
        Setup kept = setup;
        kept.stage = 1;
        GridRun truth(kept);
        truth.zero.state().gather_parameters();
        int wrong = 0;
        const Hooks hooks = {.use = [&](int block) {
          for (size_t i = 0; i < grid.model.blocks[block].parameters.size(); ++i) {
            const at::Tensor& expected = truth.model.blocks[block].parameters[i]->data;
            if (!at::equal(grid.model.blocks[block].parameters[i]->data, expected)) ++wrong;
          }
        }};
        for (int step = 0; step < 3; ++step) {
          grid.step(step, hooks);
          truth.step(step);
          truth.zero.state().gather_parameters();
        }
        CHECK(wrong == 0);
      }
    }
  }
}

}  // namespace tptrain::testing
