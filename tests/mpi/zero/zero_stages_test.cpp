// ZeRO-0 and ZeRO-1 on every layout of the world: the same bits as one another, the numbers of one
// rank, one norm everywhere; and each deliberate fault turns the same checks red.
#include <cmath>
#include <cstring>
#include <limits>

#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using sharding::StateKind;
using zero::Fault;

constexpr int kSteps = 5;

// The finished run of one stage, as every rank can see it.
struct Outcome {
  std::vector<float> norms;
  std::vector<std::vector<at::Tensor>> states;  // by kind
};

bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return a.size() == b.size();
}

void compare(const std::string& what, const std::vector<at::Tensor>& actual,
             const std::vector<at::Tensor>& expected, double tolerance,
             std::vector<std::string>& complaints) {
  const std::vector<GlobalTensor> tensors = global_tensors();
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
Outcome run_stage(const Layout& layout, int stage, Fault fault,
                  std::vector<std::string>& complaints) {
  GridRun grid(layout, stage, fault);
  WholeRun whole;
  Reference reference(kSeed);
  // Sums over dp add in another order than one rank does.
  const double tolerance = layout.dp == 1 ? 0.0 : 1e-6;
  Outcome outcome;
  for (int step = 0; step < kSteps; ++step) {
    const zero::GradientNorm norm = grid.step(step);
    const float value = norm.value.item<float>();
    outcome.norms.push_back(value);
    if (!norm.finite.item<bool>()) complaints.push_back("the norm is not finite");
    if (!same_on_every_rank(value)) complaints.push_back("ranks have norms of their own");
    compare("gradient", grid.gradient(complaints), reference_gradient(step), tolerance, complaints);
    const double expected = reference.step(step, optimizer_config());
    const float expected_whole = whole.step(step);
    if (std::abs(value - expected) > 1e-6 * expected) {
      complaints.push_back(cat("norm of step ", step, " is ", value, ", not ", expected));
    }
    if (layout.dp == 1 && value != expected_whole) complaints.push_back("norm is not one rank's");
  }
  for (const StateKind kind : {StateKind::master, StateKind::exp_avg, StateKind::exp_avg_sq}) {
    outcome.states.push_back(grid.assembled(kind, complaints));
  }
  compare("master", outcome.states[0], whole.master, tolerance, complaints);
  compare("exp_avg", outcome.states[1], whole.exp_avg, tolerance, complaints);
  compare("exp_avg_sq", outcome.states[2], whole.exp_avg_sq, tolerance, complaints);
  compare("master (plain loops)", outcome.states[0], reference.master, 1e-6, complaints);
  for (const std::string& text : grid.stale_parameters(outcome.states[0]))
    complaints.push_back(text);
  for (const std::string& text : grid.dirty_padding()) complaints.push_back(text);
  if (grid.zero.updates_done() != kSteps) complaints.push_back("updates are miscounted");
  return outcome;
}

// What is wrong with both stages on this layout; nothing without a fault.
std::vector<std::string> violations(const Layout& layout, Fault fault) {
  std::vector<std::string> complaints;
  const Outcome zero_0 = run_stage(layout, 0, fault, complaints);
  const Outcome zero_1 = run_stage(layout, 1, fault, complaints);
  if (zero_0.norms != zero_1.norms) complaints.push_back("stages have norms of their own");
  for (size_t kind = 0; kind < zero_0.states.size(); ++kind) {
    if (same_bits(zero_0.states[kind], zero_1.states[kind])) continue;
    complaints.push_back("stages 0 and 1 are not bitwise equal");
  }
  return complaints;
}

}  // namespace

TEST_CASE("ZeRO-0 and ZeRO-1 agree bitwise and follow one rank on every layout", "[zero]") {
  for (const Layout& layout : layouts()) {
    INFO(layout.text());
    const std::vector<std::string> complaints = violations(layout, Fault::none);
    INFO(join(complaints, "\n"));
    CHECK(complaints.empty());
  }
}

TEST_CASE("every deliberate fault turns the comparison red where its axis has ranks", "[zero]") {
  struct Case {
    Fault fault;
    const char* name;
    bool over_dp;
  };
  for (const Case& c : {Case{Fault::scale_dp_sum, "scale_dp_sum", true},
                        Case{Fault::skip_dp_reduction, "skip_dp_reduction", true},
                        Case{Fault::double_count_replicated_in_norm, "double_count", false},
                        Case{Fault::drop_norm_sum_over_tp, "drop_norm_sum_over_tp", false}}) {
    for (const Layout& layout : layouts()) {
      INFO(c.name << " on " << layout.text());
      const bool acts = (c.over_dp ? layout.dp : layout.tp) > 1;
      CHECK(on_any_rank(!violations(layout, c.fault).empty()) == acts);
    }
  }
}

TEST_CASE("a non-finite gradient on one rank leaves every rank as it was", "[zero]") {
  const float poisons[] = {std::numeric_limits<float>::quiet_NaN(),
                           -std::numeric_limits<float>::infinity()};
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1}) {
      for (const float poison : poisons) {
        // "norm" is replicated: on the last rank of tp > 1 the poison sits in a copy that the norm
        // does not count.
        for (const char* name : {"embed", "layers.1.qkv", "norm"}) {
          INFO(layout.text() << ", stage " << stage << ", " << poison << " in " << name);
          GridRun grid(layout, stage);
          GridRun clean(layout, stage);
          grid.step(0);
          clean.step(0);
          const std::vector<at::Tensor> before = grid.snapshot();

          grid.zero.begin_step();
          add_samples_of(grid.model, 1, grid.buckets.dp());
          if (session().rank() == session().size() - 1) {
            for (const auto& parameter : grid.model.parameters) {
              if (parameter->name == name) parameter->main_grad.view({-1})[3] = poison;
            }
          }
          grid.zero.finish_reduction();
          const zero::GradientNorm norm = grid.zero.clip(1.0);
          grid.zero.update(1e-2);
          CHECK_FALSE(norm.finite.item<bool>());
          CHECK(grid.zero.updates_done() == 1);
          CHECK(same_bits(before, grid.snapshot()));

          grid.step(2);  // and the next step goes on as if that one had not been
          clean.step(2);
          CHECK(same_bits(clean.snapshot(), grid.snapshot()));
        }
      }
    }
  }
}

TEST_CASE("the same run twice is bitwise equal", "[zero]") {
  for (const Layout& layout : layouts()) {
    GridRun first(layout, 1), second(layout, 1);
    for (int step = 0; step < 3; ++step) {
      CHECK(first.step(step).value.item<float>() == second.step(step).value.item<float>());
    }
    CHECK(same_bits(first.snapshot(), second.snapshot()));
  }
}

TEST_CASE("a step's collectives: one a bucket and way, one for the norm an axis", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1}) {
      INFO(layout.text() << ", stage " << stage);
      GridRun grid(layout, stage);
      const auto count = static_cast<int64_t>(grid.buckets.buckets().size());
      const comm::CommCounters tp = grid.mesh.tp().counters(), dp = grid.mesh.dp().counters();
      grid.step(0);
      const comm::CommCounters tp_after = grid.mesh.tp().counters();
      const comm::CommCounters dp_after = grid.mesh.dp().counters();
      // Stage 0 gathers gradients, stage 1 parameters.
      CHECK(dp_after.reduce_scatters - dp.reduce_scatters == (layout.dp > 1 ? count : 0));
      CHECK(dp_after.all_gathers - dp.all_gathers == (layout.dp > 1 ? count + 1 : 0));
      CHECK(tp_after.all_gathers - tp.all_gathers == (layout.tp > 1 ? 1 : 0));
      CHECK(tp_after.reduce_scatters - tp.reduce_scatters == 0);
      CHECK(tp_after.all_reduces + dp_after.all_reduces - tp.all_reduces - dp.all_reduces == 0);
    }
  }
}

}  // namespace tptrain::testing
