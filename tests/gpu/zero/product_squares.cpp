// The norm of gradients whose squares their products have found: that of gradients which are read,
// in steps of one micro-batch and of several, and inf and nan are named as ever. On one rank.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>

#include <cmath>
#include <limits>

#include "support/catch.h"
#include "tensor_parallel/parallel_linear.h"
#include "zero/zero_optimizer.h"

namespace tptrain::testing {
namespace {

constexpr int64_t kTokens = 192;
constexpr int64_t kIn = 4096;

at::Device gpu() { return {at::kCUDA, at::cuda::current_device()}; }
at::TensorOptions on_gpu(at::ScalarType type) { return at::TensorOptions(gpu()).dtype(type); }

bool has_kernel() {
  const cudaDeviceProp& card = *at::cuda::getCurrentDeviceProperties();
  return card.major == 9 && card.minor == 0;
}

/// Two packed matrices that the kernel takes, and one that it does not.
struct Model {
  std::unique_ptr<comm::Communicator> tp = comm::single_rank_communicator("tp"),
                                      dp = comm::single_rank_communicator("dp");
  tensor_parallel::ColumnParallelLinear large, small;
  std::vector<parameters::ParameterBlock> blocks;
  zero::ParamBuckets buckets;
  zero::ZeroOptimizer zero;

  Model()
      : large({.name = "large",
               .outputs = {{.name = "q", .features = 6144, .local = {0, 6144}},
                           {.name = "k", .features = 2048, .local = {0, 2048}}},
               .in_features = kIn},
              *tp),
        small({.name = "small",
               .outputs = {{.name = "v", .features = 24, .local = {0, 24}}},
               .in_features = kIn},
              *tp),
        blocks({{.name = "first", .parameters = large.parameters()},
                {.name = "second", .parameters = small.parameters()}}),
        buckets(blocks, {.rank = 0, .size = 1},
                {.device = gpu(), .dtype = at::kBFloat16, .zero_stage = 1}),
        zero(buckets, *tp, *dp, {}) {
    zero.state().initialise(1);
  }
  parameters::Parameter& weight(int block) { return *blocks[block].parameters[0]; }

  /// The gradients are those of the last micro-batch, and of those before it.
  zero::StepNumbers step(int micro_batches, float poison = 0.0f) {
    zero.prepare_step(1e-3);
    zero.begin_step();
    tensor_parallel::BlockObserver& observer = zero;
    for (int i = 1; i <= micro_batches; ++i) {
      zero.begin_micro_batch(
          i == micro_batches ? zero::MicroBatchPlace::last : zero::MicroBatchPlace::before_last,
          at::Tensor());
      for (int block : {0, 1}) observer.before_forward(block);
      for (int block : {1, 0}) {
        observer.before_backward(block);
        at::Tensor dy = at::randn({kTokens, weight(block).shape[0]}, on_gpu(at::kBFloat16));
        const at::Tensor x = at::randn({kTokens, kIn}, on_gpu(at::kBFloat16));
        if (block == 0 && poison != 0.0f) dy[7][9] = poison;
        tensor_parallel::linear_weight_gradient(dy, x, weight(block), nullptr);
        observer.after_backward(block);
      }
    }
    zero.finish_reduction();
    const zero::StepNumbers numbers = zero.clip(1.0, at::ones({1}, on_gpu(at::kFloat)));
    zero.update();
    return numbers;
  }
  double norm_of_gradients() {
    double sum = 0;
    for (int block : {0, 1})
      sum += weight(block).main_grad.to(at::kDouble).square().sum().item<double>();
    return std::sqrt(sum);
  }
};

TEST_CASE("the norm with squares that products have found is that of the gradients", "[zero]") {
  Model model;
  CHECK(model.weight(0).squares.of_pieces.defined() == has_kernel());
  CHECK_FALSE(model.weight(1).squares.of_pieces.defined());
  for (const int micro_batches : {1, 1, 3, 1}) {
    const zero::StepNumbers numbers = model.step(micro_batches);
    CHECK(model.weight(0).squares.current == (has_kernel() && micro_batches == 1));
    CHECK(numbers.finite.item<bool>());
    const double expected = model.norm_of_gradients();
    CHECK(std::abs(numbers.norm.item<float>() - expected) <= 1e-7 * expected);
  }
}

TEST_CASE("squares of another step are not taken for those of this one", "[zero]") {
  Model model;
  model.step(1);
  // Nothing is written: the gradients are zeros.
  model.zero.prepare_step(1e-3);
  model.zero.begin_step();
  model.zero.begin_micro_batch(zero::MicroBatchPlace::last, at::Tensor());
  tensor_parallel::BlockObserver& observer = model.zero;
  for (int block : {0, 1}) observer.before_forward(block);
  for (int block : {1, 0}) {
    observer.before_backward(block);
    observer.after_backward(block);
  }
  model.zero.finish_reduction();
  CHECK(model.zero.clip(1.0, at::ones({1}, on_gpu(at::kFloat))).norm.item<float>() == 0.0f);
}

TEST_CASE("a gradient that is not finite is named by the squares of its product", "[zero]") {
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const int micro_batches : {1, 2}) {
      Model model;
      const zero::StepNumbers numbers = model.step(micro_batches, poison);
      CHECK_FALSE(numbers.finite.item<bool>());
      CHECK(numbers.culprit.item<int64_t>() == 0);
    }
  }
}

TEST_CASE("parameters outlive who asked for their squares", "[zero]") {
  const auto tp = comm::single_rank_communicator("tp");
  tensor_parallel::ColumnParallelLinear linear(
      {.name = "linear",
       .outputs = {{.name = "q", .features = 8192, .local = {0, 8192}}},
       .in_features = kIn},
      *tp);
  const std::vector<parameters::ParameterBlock> blocks = {
      {.name = "one", .parameters = linear.parameters()}};
  {
    zero::ParamBuckets buckets(blocks, {.rank = 0, .size = 1},
                               {.device = gpu(), .dtype = at::kBFloat16, .zero_stage = 1});
    const auto dp = comm::single_rank_communicator("dp");
    const zero::ZeroOptimizer zero(buckets, *tp, *dp, {});
    CHECK(linear.parameters()[0]->squares.of_pieces.defined() == has_kernel());
  }
  CHECK_FALSE(linear.parameters()[0]->squares.of_pieces.defined());
}

}  // namespace
}  // namespace tptrain::testing
