// A rule by matrices on every layout: whatever cuts them, over tp, over dp, in copies, they are
// made orthogonal as a single rank would that holds them whole.
#include <map>

#include "base/text.h"
#include "mpi/zero/grid_run.h"
#include "optim/update_rule.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

constexpr int kSteps = 4;

/// One rank's training, in the order of global_tensors().
std::vector<at::Tensor> on_one_rank() {
  SyntheticModel model = synthetic_model(0, 1);
  const auto tp = comm::single_rank_communicator("tp");
  const auto dp = comm::single_rank_communicator("dp");
  zero::ParamBuckets buckets(
      model.blocks, {.rank = 0, .size = 1},
      {.zero_stage = 1, .rule = &optim::update_rule(config::OptimizerType::muon)});
  zero::ZeroOptimizer::Options options{.optimizer = optimizer_config(), .seed = kSeed};
  options.optimizer.type = config::OptimizerType::muon;
  zero::ZeroOptimizer zero(buckets, *tp, *dp, options);
  zero.state().initialise(kSeed);
  for (int step = 0; step < kSteps; ++step) {
    zero.prepare_step(options.optimizer.learning_rate);
    zero.begin_step();
    run_samples_of(model, zero, step, buckets.dp());
    zero.finish_reduction();
    zero.clip(options.optimizer.max_grad_norm, at::ones({2}));
    zero.update();
  }
  std::map<std::string, at::Tensor> masters;
  for (const sharding::StatePiece& piece : zero.state().state_dict().pieces) {
    if (piece.kind == sharding::kMaster) masters[piece.spec.name] = piece.data.clone();
  }
  std::vector<at::Tensor> in_order;
  for (const GlobalTensor& tensor : global_tensors())
    in_order.push_back(masters.at(tensor.name).view({-1}));
  return in_order;
}

std::vector<at::Tensor> trained(const Setup& setup, std::vector<std::string>& complaints) {
  GridRun run(setup);
  for (int step = 0; step < kSteps; ++step) run.step(step);
  std::vector<at::Tensor> masters = run.assembled(sharding::kMaster, complaints);
  const auto append = [&](const std::vector<std::string>& more) {
    complaints.insert(complaints.end(), more.begin(), more.end());
  };
  append(run.drifted_copies());
  append(run.stale_parameters(masters));
  return masters;
}

}  // namespace

TEST_CASE("muon on every layout and stage is muon on one rank", "[zero]") {
  const std::vector<at::Tensor> one = on_one_rank();
  for (const Layout& layout : layouts()) {
    std::vector<at::Tensor> first;
    for (const int stage : {0, 1, 2, 3}) {
      for (const bool late : {false, true}) {
        const Setup setup{.layout = layout,
                          .stage = stage,
                          .per_micro_batch = true,
                          .late = late,
                          .rule = config::OptimizerType::muon};
        INFO(setup.text());
        std::vector<std::string> complaints;
        const std::vector<at::Tensor> masters = trained(setup, complaints);
        INFO(join(complaints, "\n"));
        CHECK(complaints.empty());
        REQUIRE(masters.size() == one.size());
        // Sums over samples in another order differ in the last bits; Newton-Schulz magnifies that
        // up to 480 times where a singular value is small.
        for (size_t i = 0; i < one.size(); ++i)
          CHECK(relative_difference(masters[i], one[i]) <= 2e-5);
        if (first.empty()) first = masters;
        CHECK(same_bits(masters, first));
      }
    }
  }
}

TEST_CASE("muon in bf16 rounds its masters alike in every stage", "[zero]") {
  for (const Layout& layout : layouts()) {
    std::vector<at::Tensor> first;
    for (const int stage : {0, 1, 2, 3}) {
      const Setup setup{.layout = layout,
                        .stage = stage,
                        .per_micro_batch = true,
                        .dtype = at::kBFloat16,
                        .moments = config::Dtype::bf16,
                        .masters = config::Dtype::bf16,
                        .rule = config::OptimizerType::muon};
      INFO(setup.text());
      std::vector<std::string> complaints;
      const std::vector<at::Tensor> masters = trained(setup, complaints);
      INFO(join(complaints, "\n"));
      CHECK(complaints.empty());
      if (first.empty()) first = masters;
      CHECK(same_bits(masters, first));
    }
  }
}

}  // namespace tptrain::testing
