// The tensor-parallel layers on one rank against plain autograd, and what they declare about their
// parameters on ranks that are not there.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/generated/variable_factories.h>

#include "base/error.h"
#include "support/catch.h"
#include "support/layer_checks.h"
#include "support/reference_decoder.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::testing {
namespace {

using sharding::NamedSlice;
using sharding::Parameter;
using tensor_parallel::Bias;
using tensor_parallel::ColumnParallelLinear;
using tensor_parallel::RowParallelLinear;

TEST_CASE("a column-parallel linear equals plain autograd") {
  check_column_parallel_linear(*comm::single_rank_communicator("tp"));
}

TEST_CASE("a row-parallel linear equals plain autograd") {
  check_row_parallel_linear(*comm::single_rank_communicator("tp"));
}

TEST_CASE("the vocabulary's embedding equals plain autograd") {
  check_vocab_parallel_embedding(*comm::single_rank_communicator("tp"));
}

TEST_CASE("the vocabulary's cross entropy equals plain autograd") {
  check_vocab_parallel_cross_entropy(*comm::single_rank_communicator("tp"));
}

TEST_CASE("regions of one rank change nothing") {
  check_regions(*comm::single_rank_communicator("tp"));
}

TEST_CASE("a packed linear declares its rank's rows of each output, one after the other") {
  const auto tp = comm::planning_communicator("tp", /*rank=*/1, /*size=*/2);
  ColumnParallelLinear layer({.name = "qkv",
                              .outputs = {{"q", 8}, {"k", 4}, {"v", 4}},
                              .in_features = 6,
                              .bias = Bias::learned,
                              .init_std = 0.5},
                             *tp);
  const std::vector<Parameter*> parameters = layer.parameters();
  REQUIRE(parameters.size() == 2);

  const Parameter& weight = *parameters[0];
  CHECK(weight.name == "qkv.weight");
  CHECK(weight.shape == std::vector<int64_t>{8, 6});
  CHECK(weight.role == sharding::Role::column_parallel);
  CHECK(weight.placement == sharding::Placement::tp_sharded);
  REQUIRE(weight.slices.size() == 3);
  CHECK(weight.slices[0].spec == sharding::slice_of("q.weight", {8, 6}, 0, 4, 8));
  CHECK(weight.slices[1].spec == sharding::slice_of("k.weight", {4, 6}, 0, 2, 4));
  CHECK(weight.slices[2].spec == sharding::slice_of("v.weight", {4, 6}, 0, 2, 4));
  CHECK(weight.slices[1].offset == 4 * 6);
  CHECK(weight.slices[2].offset == 6 * 6);
  CHECK(weight.slices[0].init.kind == sharding::Init::Kind::normal);
  CHECK(weight.slices[0].init.std == 0.5);

  const Parameter& bias = *parameters[1];
  CHECK(bias.name == "qkv.bias");
  CHECK(bias.shape == std::vector<int64_t>{8});
  CHECK(bias.placement == sharding::Placement::tp_sharded);
  CHECK(bias.slices[2].spec == sharding::slice_of("v.bias", {4}, 0, 2, 4));
  CHECK(bias.slices[2].offset == 6);
  CHECK(bias.slices[2].init.kind == sharding::Init::Kind::zeros);
}

TEST_CASE("a row-parallel linear's bias is replicated and owned by tp rank 0") {
  for (const int rank : {0, 1}) {
    const auto tp = comm::planning_communicator("tp", rank, /*size=*/2);
    RowParallelLinear layer(
        {.name = "o", .in_features = 8, .out_features = 6, .bias = Bias::learned}, *tp);
    const std::vector<Parameter*> parameters = layer.parameters();
    REQUIRE(parameters.size() == 2);
    CHECK(parameters[0]->slices[0].spec ==
          sharding::slice_of("o.weight", {6, 8}, 1, 4 * rank, 4 * rank + 4));
    CHECK(parameters[0]->slices[0].owned);
    CHECK(parameters[1]->placement == sharding::Placement::tp_replicated);
    CHECK(parameters[1]->slices[0].spec == sharding::whole_tensor("o.bias", {6}));
    CHECK(parameters[1]->slices[0].owned == (rank == 0));
  }
}

TEST_CASE("features that do not divide are refused by name") {
  const auto tp = comm::planning_communicator("tp", /*rank=*/0, /*size=*/4);
  CHECK_THROWS_WITH(
      RowParallelLinear({.name = "o", .in_features = 6, .out_features = 6}, *tp),
      "internal error: o.weight has 6 features, to be cut into 4 slices: it must "
      "divide by the size of the tp axis.\n  check_tp_size tells so before a model is "
      "built.");
}

TEST_CASE("without gradients no graph is built and nothing is kept") {
  const auto tp = comm::single_rank_communicator("tp");
  ColumnParallelLinear layer({.name = "packed", .outputs = {{"q", 12}}, .in_features = 8}, *tp);
  bind_parameters(layer.parameters(), {{"q.weight", at::ones({12, 8})}});
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::ones({3, 2, 8}).requires_grad_(true);
  const at::Tensor y = layer.forward(x);
  CHECK_FALSE(y.requires_grad());
  CHECK(x.storage().use_count() == 1);  // held by x alone
}

}  // namespace
}  // namespace tptrain::testing
