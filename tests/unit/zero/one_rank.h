// ZeRO on one rank, for unit tests.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "unit/zero/synthetic_model.h"
#include "zero/zero_optimizer.h"

namespace tptrain::zero {

using sharding::StateKind;
using sharding::StatePiece;
using testing::synthetic_model;
using testing::SyntheticModel;

inline constexpr uint64_t kSeed = 42;

inline config::OptimizerConfig optimizer_config() {
  config::OptimizerConfig optimizer;
  optimizer.learning_rate = 1e-2;
  optimizer.weight_decay = 0.1;
  optimizer.max_grad_norm = 1.0;
  return optimizer;
}

inline at::Tensor no_losses() { return at::zeros({0}); }

inline std::string message_of(const auto& action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "(no error)";
}

// The whole of ZeRO on one rank, or as a rank of a grid that is only planned.
struct OneRank {
  /// Without a rule: that of the options.
  explicit OneRank(ZeroOptimizer::Options options, at::ScalarType dtype = at::kFloat,
                   const optim::UpdateRule* rule = nullptr)
      : model(synthetic_model(0, 1)),
        buckets(model.blocks, {.rank = 0, .size = 1},
                {.dtype = dtype, .zero_stage = options.zero_stage, .rule = rule}),
        tp(comm::single_rank_communicator("tp")),
        dp(comm::single_rank_communicator("dp")),
        zero(buckets, *tp, *dp, options) {
    at::set_num_threads(1);
    zero.state().initialise(kSeed);
  }
  StepNumbers step(int index, const config::OptimizerConfig& optimizer,
                   const testing::Hooks& hooks = {}, float loss = 1.0f) {
    zero.prepare_step(optimizer.learning_rate);
    zero.begin_step();
    testing::run_samples_of(model, zero, index, {.rank = 0, .size = 1}, hooks);
    zero.finish_reduction();
    const StepNumbers numbers = zero.clip(optimizer.max_grad_norm, at::full({1}, loss));
    zero.update();
    return numbers;
  }
  tensor_parallel::BlockObserver& observer() { return zero; }

  SyntheticModel model;
  ParamBuckets buckets;
  std::unique_ptr<comm::Communicator> tp, dp;
  ZeroOptimizer zero;
};

// Every piece of one kind put together, in the order of global_tensors().
inline std::vector<at::Tensor> assembled(ZeroOptimizer& zero, StateKind kind) {
  std::map<std::string, at::Tensor> by_name;
  for (const testing::GlobalTensor& tensor : testing::global_tensors()) {
    by_name[tensor.name] = at::full({tensor.numel()}, std::nanf(""));
  }
  for (const StatePiece& piece : zero.state().state_dict().pieces) {
    if (piece.kind != kind) continue;
    by_name.at(piece.spec.name).slice(0, piece.begin, piece.end).copy_(piece.data);
  }
  std::vector<at::Tensor> result;
  for (const testing::GlobalTensor& tensor : testing::global_tensors()) {
    result.push_back(by_name.at(tensor.name));
  }
  return result;
}

inline std::vector<at::Tensor> snapshot(ZeroOptimizer& zero) {
  std::vector<at::Tensor> copies;
  for (const StatePiece& piece : zero.state().state_dict().pieces)
    copies.push_back(piece.data.clone());
  return copies;
}

}  // namespace tptrain::zero
