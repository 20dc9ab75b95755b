#include "mpi/zero/stage_comparison.h"

#include <cmath>
#include <optional>
#include <utility>

#include "base/text.h"

namespace tptrain::testing {
namespace {

using sharding::StateKind;

constexpr int kSteps = 3;

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
  const bool rounds = (setup.reduce_dtype == at::kBFloat16 && setup.layout.dp > 1) ||
                      setup.gradient_dtype == at::kBFloat16;
  const bool exact_state =
      setup.moments == config::Dtype::fp32 && setup.masters == config::Dtype::fp32;
  // Sums over dp and CUDA's AdamW add in another order than one CPU rank does. bf16 keeps 8 bits of
  // each term.
  const bool same_order = setup.layout.dp == 1 && setup.device == comm::DeviceType::cpu;
  const double of_gradient = rounds ? 0.03 : same_order ? 0.0 : 1e-6;
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
  for (const StateKind kind : {sharding::kMaster, "exp_avg", "exp_avg_sq"}) {
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
  if (grid.zero.state().updates_done() != kSteps) complaints.push_back("updates are miscounted");
  return outcome;
}

}  // namespace

std::vector<std::string> violations(Setup setup) {
  std::vector<std::string> complaints;
  std::optional<Outcome> first;
  for (const int stage : setup.per_micro_batch ? std::vector{0, 1, 2, 3} : std::vector{0, 1}) {
    if (stage == 0 && setup.per_micro_batch && setup.gradient_dtype == at::kBFloat16) continue;
    setup.stage = stage;
    Outcome outcome = run_stage(setup, complaints);
    if (!first) {
      first = std::move(outcome);
      continue;
    }
    if (outcome.norms != first->norms) complaints.push_back("stages have norms of their own");
    for (size_t kind = 0; kind < outcome.states.size(); ++kind) {
      if (same_bits(outcome.states[kind], first->states[kind])) continue;
      complaints.push_back(
          cat(cat("stages ", setup.per_micro_batch && setup.gradient_dtype == at::kBFloat16 ? 1 : 0,
                  " and "),
              stage, " are not bitwise equal"));
    }
  }
  return complaints;
}

}  // namespace tptrain::testing
