// ZeRO on one rank against plain AdamW, and what a rank of a larger grid saves (planned, without
// that grid).
#include "zero/zero_optimizer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "base/error.h"
#include "support/catch.h"
#include "unit/zero/synthetic_model.h"
#include "zero/gradient_norm.h"

namespace tptrain::zero {
namespace {

using sharding::StateKind;
using sharding::StatePiece;
using testing::synthetic_model;
using testing::SyntheticModel;

constexpr uint64_t kSeed = 42;

config::OptimizerConfig optimizer_config() {
  return {.learning_rate = 1e-2, .weight_decay = 0.1, .max_grad_norm = 1.0};
}

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "(no error)";
}

// The whole of ZeRO on one rank, or as a rank of a grid that is only planned.
struct OneRank {
  explicit OneRank(ZeroOptimizer::Options options)
      : model(synthetic_model(0, 1)),
        buckets(model.blocks, {.rank = 0, .size = 1}, at::kCPU),
        tp(comm::single_rank_communicator("tp")),
        dp(comm::single_rank_communicator("dp")),
        zero(buckets, *tp, *dp, options) {
    at::set_num_threads(1);
    zero.initialise(kSeed);
  }
  GradientNorm step(int index, const config::OptimizerConfig& optimizer) {
    zero.begin_step();
    testing::add_samples_of(model, index, {.rank = 0, .size = 1});
    zero.finish_reduction();
    const GradientNorm norm = zero.clip(optimizer.max_grad_norm);
    zero.update(optimizer.learning_rate);
    return norm;
  }

  SyntheticModel model;
  ParamBuckets buckets;
  std::unique_ptr<comm::Communicator> tp, dp;
  ZeroOptimizer zero;
};

// Every piece of one kind put together, in the order of global_tensors().
std::vector<at::Tensor> assembled(ZeroOptimizer& zero, StateKind kind) {
  std::map<std::string, at::Tensor> by_name;
  for (const testing::GlobalTensor& tensor : testing::global_tensors()) {
    by_name[tensor.name] = at::full({tensor.numel()}, std::nanf(""));
  }
  for (const StatePiece& piece : zero.state_dict().pieces) {
    if (piece.kind != kind) continue;
    by_name.at(piece.spec.name).slice(0, piece.begin, piece.end).copy_(piece.data);
  }
  std::vector<at::Tensor> result;
  for (const testing::GlobalTensor& tensor : testing::global_tensors()) {
    result.push_back(by_name.at(tensor.name));
  }
  return result;
}

std::vector<at::Tensor> snapshot(ZeroOptimizer& zero) {
  std::vector<at::Tensor> copies;
  for (const StatePiece& piece : zero.state_dict().pieces) copies.push_back(piece.data.clone());
  return copies;
}

class MemorySource final : public sharding::TensorSource {
 public:
  std::vector<sharding::TensorInfo> tensors() const override { return {}; }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    int64_t at = 0;
    for (const sharding::Run& run : runs_of(spec, begin, end)) {
      out.slice(0, at, at + run.count)
          .copy_(at::arange(run.global_begin, run.global_begin + run.count));
      at += run.count;
    }
  }
};

}  // namespace

TEST_CASE("five steps on one rank follow plain AdamW", "[zero]") {
  for (const int stage : {0, 1}) {
    for (const double max_norm : {0.0, 1.0, 1e6}) {
      config::OptimizerConfig optimizer = optimizer_config();
      optimizer.max_grad_norm = max_norm;
      OneRank one({.zero_stage = stage, .optimizer = optimizer});
      testing::Reference reference(kSeed);
      for (int step = 0; step < 5; ++step) {
        const double expected_norm = reference.step(step, optimizer);
        const GradientNorm norm = one.step(step, optimizer);
        CHECK(norm.finite.item<bool>());
        CHECK(norm.value.item<float>() == static_cast<float>(expected_norm));
      }
      CHECK(one.zero.updates_done() == 5);
      const auto master = assembled(one.zero, StateKind::master);
      const auto exp_avg = assembled(one.zero, StateKind::exp_avg);
      const auto exp_avg_sq = assembled(one.zero, StateKind::exp_avg_sq);
      for (size_t i = 0; i < master.size(); ++i) {
        INFO(testing::global_tensors()[i].name);
        // fp32 against double over five steps.
        CHECK(testing::relative_difference(master[i], reference.master[i]) < 1e-6);
        CHECK(testing::relative_difference(exp_avg[i], reference.exp_avg[i]) < 1e-6);
        CHECK(testing::relative_difference(exp_avg_sq[i], reference.exp_avg_sq[i]) < 1e-6);
      }
    }
  }
}

TEST_CASE("weight decay pulls matrices only", "[zero]") {
  config::OptimizerConfig optimizer = optimizer_config();
  optimizer.weight_decay = 0.5;
  OneRank one({.optimizer = optimizer});
  const auto before = assembled(one.zero, StateKind::master);
  std::vector<at::Tensor> old;
  for (const at::Tensor& tensor : before) old.push_back(tensor.clone());
  one.zero.begin_step();  // zero gradient: only the decay acts
  one.zero.finish_reduction();
  one.zero.clip(0);
  one.zero.update(0.1);
  const auto after = assembled(one.zero, StateKind::master);
  const auto tensors = testing::global_tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    INFO(tensors[i].name);
    if (tensors[i].decays()) {
      CHECK(testing::relative_difference(after[i], old[i] * 0.95) < 1e-6);
    } else {
      CHECK(at::equal(after[i], old[i]));
    }
  }
}

TEST_CASE("a non-finite gradient changes nothing and does not count", "[zero]") {
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    OneRank one({.optimizer = optimizer_config()});
    one.step(0, optimizer_config());
    const auto before = snapshot(one.zero);
    one.zero.begin_step();
    testing::add_sample(one.model, 1, 0);
    one.model.parameters[3]->main_grad.view({-1})[4] = poison;
    one.zero.finish_reduction();
    const GradientNorm norm = one.zero.clip(1.0);
    CHECK_FALSE(norm.finite.item<bool>());
    one.zero.update(1e-2);
    CHECK(one.zero.updates_done() == 1);
    const auto after = snapshot(one.zero);
    for (size_t i = 0; i < before.size(); ++i) CHECK(at::equal(before[i], after[i]));
  }
}

TEST_CASE("one rank communicates nothing", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  one.step(0, optimizer_config());
  one.zero.state_loaded(1);
  for (const comm::Communicator* axis : {one.tp.get(), one.dp.get()}) {
    CHECK(axis->counters().all_reduces == 0);
    CHECK(axis->counters().reduce_scatters == 0);
    CHECK(axis->counters().all_gathers == 0);
  }
}

TEST_CASE("begin_step clears gradients, and may drop a step", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  one.zero.begin_step();
  testing::add_sample(one.model, 0, 0);
  one.zero.finish_reduction();
  one.zero.begin_step();
  for (const Bucket& bucket : one.buckets.buckets()) {
    CHECK(at::equal(bucket.main_grad, at::zeros({bucket.numel})));
  }
}

TEST_CASE("initial values and loaded parameters clear moments and the counter", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  one.step(0, optimizer_config());
  SECTION("initialise") {
    one.zero.initialise(kSeed);
    const testing::Reference reference(kSeed);
    const auto master = assembled(one.zero, StateKind::master);
    for (size_t i = 0; i < master.size(); ++i) {
      CHECK(at::equal(master[i].to(at::kDouble), reference.master[i]));
    }
  }
  SECTION("load_parameters") {
    one.zero.load_parameters(MemorySource());
    for (const at::Tensor& tensor : assembled(one.zero, StateKind::master)) {
      CHECK(at::equal(tensor, at::arange(tensor.numel()).to(at::kFloat)));
    }
  }
  CHECK(one.zero.updates_done() == 0);
  for (const StateKind kind : {StateKind::exp_avg, StateKind::exp_avg_sq}) {
    for (const at::Tensor& tensor : assembled(one.zero, kind)) {
      CHECK(at::equal(tensor, at::zeros_like(tensor)));
    }
  }
}

TEST_CASE("a state dict written back continues bit by bit", "[zero]") {
  OneRank straight({.optimizer = optimizer_config()});
  for (int step = 0; step < 5; ++step) straight.step(step, optimizer_config());

  OneRank first({.optimizer = optimizer_config()});
  for (int step = 0; step < 3; ++step) first.step(step, optimizer_config());
  OneRank second({.zero_stage = 0, .optimizer = optimizer_config()});
  const sharding::StateDict from = first.zero.state_dict();
  sharding::StateDict to = second.zero.state_dict();
  REQUIRE(from.pieces.size() == to.pieces.size());
  for (size_t i = 0; i < from.pieces.size(); ++i) to.pieces[i].data.copy_(from.pieces[i].data);
  second.zero.state_loaded(first.zero.updates_done());
  for (int step = 3; step < 5; ++step) second.step(step, optimizer_config());

  const auto expected = snapshot(straight.zero), actual = snapshot(second.zero);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(at::equal(expected[i], actual[i]));
}

TEST_CASE("over all ranks of a grid every element of every kind is saved once", "[zero]") {
  for (const int stage : {0, 1}) {
    for (const int tp_size : {1, 2, 4}) {
      for (const int dp_size : {1, 2, 3, 8}) {
        std::map<std::pair<StateKind, std::string>, at::Tensor> saved;
        for (const StateKind kind :
             {StateKind::master, StateKind::exp_avg, StateKind::exp_avg_sq}) {
          for (const auto& tensor : testing::global_tensors()) {
            saved[{kind, tensor.name}] = at::zeros({tensor.numel()});
          }
        }
        for (int rank = 0; rank < tp_size * dp_size; ++rank) {
          SyntheticModel model = synthetic_model(rank % tp_size, tp_size);
          const DpPosition position = {.rank = rank / tp_size, .size = dp_size};
          ParamBuckets buckets(model.blocks, position, at::kCPU);
          const auto tp = comm::planning_communicator("tp", rank % tp_size, tp_size);
          const auto dp = comm::planning_communicator("dp", position.rank, dp_size);
          ZeroOptimizer zero(buckets, *tp, *dp,
                             {.zero_stage = stage, .optimizer = optimizer_config()});
          int64_t held = 0;
          for (const StatePiece& piece : zero.state_dict().pieces) {
            REQUIRE(piece.data.dim() == 1);
            REQUIRE(piece.data.numel() == piece.end - piece.begin);
            held += piece.kind == StateKind::master ? piece.data.numel() : 0;
            if (!piece.save) continue;
            for (const sharding::Run& run : runs_of(piece.spec, piece.begin, piece.end)) {
              saved.at({piece.kind, piece.spec.name})
                  .slice(0, run.global_begin, run.global_begin + run.count)
                  .add_(1);
            }
          }
          // Every holder loads all it holds: in stage 0 all parameters of the rank.
          int64_t local = 0;
          for (const auto& parameter : model.parameters) local += parameter->numel();
          if (stage == 0) REQUIRE(held == local);
        }
        for (const auto& [key, counts] : saved) {
          INFO(key.second << " tp " << tp_size << " dp " << dp_size << " stage " << stage);
          REQUIRE(at::equal(counts, at::ones_like(counts)));
        }
      }
    }
  }
}

TEST_CASE("what the optimizer cannot do is refused", "[zero]") {
  const auto construct = [](ZeroOptimizer::Options options, int dp_rank, int dp_size) {
    SyntheticModel model = synthetic_model(0, 1);
    ParamBuckets buckets(model.blocks, {.rank = 0, .size = 1}, at::kCPU);
    const auto tp = comm::single_rank_communicator("tp");
    const auto dp = comm::planning_communicator("dp", dp_rank, dp_size);
    ZeroOptimizer zero(buckets, *tp, *dp, options);
  };
  CHECK(message_of([&] { construct({.zero_stage = 2}, 0, 1); }) ==
        "internal error: ZeRO stage 2: it must be 0 or 1.");
  CHECK(message_of([&] { construct({.optimizer = {.betas = {0.9}}}, 0, 1); }) ==
        "internal error: 1 betas of AdamW: it must be two.");
  CHECK(message_of([&] { construct({}, 1, 2); }) ==
        "internal error: buckets laid out for dp rank 0 of 1, communicator of dp rank 1 of 2: it "
        "must be the same.");
}

TEST_CASE("the calls of a step out of order are refused", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  const std::string order =
      " of the optimizer was called out of order: it must follow begin_step, finish_reduction, "
      "clip, update.\n  ";
  one.zero.begin_step();
  CHECK(message_of([&] { one.zero.clip(1.0); }) ==
        "internal error: clip()" + order + "Call finish_reduction() before it.");
  CHECK(message_of([&] { one.zero.gradient_pieces(); }) ==
        "internal error: gradient_pieces() was called before finish_reduction(): it must follow "
        "it: this rank's gradient is not yet the sum over dp.");
  one.zero.finish_reduction();
  CHECK(message_of([&] { one.zero.finish_reduction(); }) ==
        "internal error: finish_reduction()" + order +
            "Call it once a step: a second sum over dp would count every gradient dp times.");
  CHECK(message_of([&] { one.zero.update(0.1); }) ==
        "internal error: update()" + order +
            "Call clip() before it, with max_norm 0 for no limit.");
  CHECK(message_of([&] { one.zero.state_loaded(-1); }) ==
        "internal error: -1 updates done: it must not be negative.");
}

TEST_CASE("gradient pieces are the global gradient", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  one.step(2, optimizer_config());
  const auto expected = testing::reference_gradient(2);
  const auto pieces = one.zero.gradient_pieces().pieces;
  const auto tensors = testing::global_tensors();
  REQUIRE(pieces.size() == tensors.size());
  for (const StatePiece& piece : pieces) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == piece.spec.name) CHECK(at::equal(piece.data, expected[i]));
    }
  }
}

TEST_CASE("sums of squares: fp64, the same bits with any number of threads", "[zero]") {
  const at::Tensor values = at::arange(100003).to(at::kFloat).mul_(1e-3).sub_(31);
  const std::vector<at::Tensor> views = {values.slice(0, 0, 7), values.slice(0, 7, 70001),
                                         values.slice(0, 70001, 100003)};
  at::set_num_threads(1);
  const double one = sum_of_squares(views, at::kCPU).item<double>();
  at::set_num_threads(2);
  const double two = sum_of_squares(views, at::kCPU).item<double>();
  at::set_num_threads(1);
  CHECK(one == two);
  const double expected = values.to(at::kDouble).square().sum().item<double>();
  CHECK(std::abs(one - expected) < 1e-12 * expected);
  CHECK(sum_of_squares({}, at::kCPU).item<double>() == 0);
  // 1e30 squared is beyond fp32, whose largest is 3.4e38.
  CHECK(sum_of_squares({at::full({1}, 1e30f)}, at::kCPU).item<double>() > 9e59);
}

}  // namespace tptrain::zero
