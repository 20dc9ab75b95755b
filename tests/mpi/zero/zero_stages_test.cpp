// All ZeRO stages on every layout of the world: the same bits as one another, the numbers of one
// rank, one norm everywhere; and each deliberate fault turns the same checks red.
#include <cmath>
#include <limits>
#include <optional>

#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using sharding::StateKind;
using zero::Fault;

constexpr int kSteps = 4;

// The finished run of one stage, as every rank can see it.
struct Outcome {
  std::vector<float> norms;
  std::vector<std::vector<at::Tensor>> states;  // by kind
};

void compare(const std::string& what, Head head, const std::vector<at::Tensor>& actual,
             const std::vector<at::Tensor>& expected, double tolerance,
             std::vector<std::string>& complaints) {
  const std::vector<GlobalTensor> tensors = global_tensors(head);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const double difference = relative_difference(actual[i], expected[i]);
    if (difference <= tolerance) continue;
    complaints.push_back(
        cat(what, " of ", tensors[i].name, " differs by ", difference, ", more than ", tolerance));
  }
}

bool same_on_every_rank(float value) {
  const std::string bits(reinterpret_cast<const char*>(&value), sizeof value);
  for (const std::string& other : session().all_gather(bits)) {
    if (other != bits) return false;
  }
  return true;
}

// Trains `kSteps` steps and compares each with the references on the way.
Outcome run_stage(const Setup& setup, std::vector<std::string>& complaints) {
  GridRun grid(setup);
  WholeRun whole(setup.head);
  Reference reference(kSeed, setup.head);
  const bool rounds = setup.reduce_dtype == at::kBFloat16 && setup.layout.dp > 1;
  const bool exact_state = setup.moments == "fp32" && setup.masters == "fp32";
  // Sums over dp add in another order than one rank does. bf16 keeps 8 bits of each term.
  const double of_gradient = rounds ? 0.03 : setup.layout.dp == 1 ? 0.0 : 1e-6;
  Outcome outcome;
  for (int step = 0; step < kSteps; ++step) {
    const zero::StepNumbers numbers = grid.step(step, {}, 0.5f);
    const float value = numbers.norm.item<float>();
    outcome.norms.push_back(value);
    if (!numbers.finite.item<bool>()) complaints.push_back("the norm is not finite");
    if (numbers.culprit.item<int64_t>() != -1) complaints.push_back("a culprit without a cause");
    if (!same_on_every_rank(value)) complaints.push_back("ranks have norms of their own");
    const float losses[] = {0.5f * setup.layout.dp, std::exp2f(setup.layout.dp) - 1};
    for (int i : {0, 1}) {
      if (numbers.losses[i].item<float>() != losses[i])
        complaints.push_back("a loss is not the sum");
    }
    compare("gradient", setup.head, grid.gradient(complaints), reference_gradient(step, setup.head),
            of_gradient, complaints);
    const double expected = reference.step(step, optimizer_config());
    const float expected_whole = whole.step(step);
    if (std::abs(value - expected) > (rounds ? 1e-2 : 1e-6) * expected) {
      complaints.push_back(cat("norm of step ", step, " is ", value, ", not ", expected));
    }
    if (of_gradient == 0 && value != expected_whole) complaints.push_back("norm is not one rank's");
  }
  for (const StateKind kind : {StateKind::master, StateKind::exp_avg, StateKind::exp_avg_sq}) {
    outcome.states.push_back(grid.assembled(kind, complaints));
  }
  if (exact_state && !rounds) {
    compare("master", setup.head, outcome.states[0], whole.master, of_gradient, complaints);
    compare("exp_avg", setup.head, outcome.states[1], whole.exp_avg, of_gradient, complaints);
    compare("exp_avg_sq", setup.head, outcome.states[2], whole.exp_avg_sq, of_gradient, complaints);
    compare("master (plain loops)", setup.head, outcome.states[0], reference.master, 1e-6,
            complaints);
  }
  for (const std::string& text : grid.stale_parameters(outcome.states[0]))
    complaints.push_back(text);
  for (const std::string& text : grid.drifted_copies()) complaints.push_back(text);
  if (grid.zero.updates_done() != kSteps) complaints.push_back("updates are miscounted");
  return outcome;
}

// What is wrong with the stages of one cadence; nothing without a fault.
std::vector<std::string> violations(Setup setup) {
  std::vector<std::string> complaints;
  std::optional<Outcome> first;
  for (const int stage : setup.per_micro_batch ? std::vector{0, 1, 2, 3} : std::vector{0, 1}) {
    setup.stage = stage;
    Outcome outcome = run_stage(setup, complaints);
    if (!first) {
      first = std::move(outcome);
      continue;
    }
    if (outcome.norms != first->norms) complaints.push_back("stages have norms of their own");
    for (size_t kind = 0; kind < outcome.states.size(); ++kind) {
      if (same_bits(outcome.states[kind], first->states[kind])) continue;
      complaints.push_back(cat("stages 0 and ", stage, " are not bitwise equal"));
    }
  }
  return complaints;
}

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
    result.back().moments = "bf16";
    result.push_back(base);
    result.back().masters = "bf16";
    result.back().head = Head::tied;
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
          for (const sharding::Parameter* parameter : grid.model.blocks[block].parameters) {
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
          CHECK(grid.zero.parameter_name(culprit) == name);
        }
        CHECK(grid.zero.updates_done() == 1);
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
            const auto master = evaluated.assembled(StateKind::master, complaints);
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
        }
        CHECK(wrong == 0);
      }
    }
  }
}

}  // namespace tptrain::testing
