// The tensor-parallel layers on one rank against plain autograd, and what they declare about their
// parameters on ranks that are not there.
#include <ATen/ATen.h>

#include "support/catch.h"
#include "support/layer_checks.h"
#include "support/reference_decoder.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/partition.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::testing {
namespace {

using parameters::Parameter;
using parameters::TpGradient;
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
  check_sequence_region(*comm::single_rank_communicator("tp"));
}

TEST_CASE("a packed linear declares its rank's rows of each output, one after the other") {
  const ColumnParallelLinear::Output q = {
      .name = "q", .features = 9, .local = {.begin = 4, .end = 8}};
  const ColumnParallelLinear::Output k = {.name = "k",
                                          .features = 4,
                                          .local = {.begin = 2, .end = 4},
                                          .owned = false,
                                          .copies = {.part = 1, .parts = 2}};
  ColumnParallelLinear layer(
      {.name = "qk", .outputs = {q, k}, .in_features = 6, .bias = Bias::learned, .init_std = 0.5},
      *comm::single_rank_communicator("tp"));
  const std::vector<Parameter*> parameters = layer.parameters();
  REQUIRE(parameters.size() == 2);

  const Parameter& weight = *parameters[0];
  CHECK(weight.name == "qk.weight");
  CHECK(weight.shape == std::vector<int64_t>{6, 6});
  CHECK(weight.role == parameters::Role::column_parallel);
  CHECK(weight.placement == parameters::Placement::tp_sharded);
  REQUIRE(weight.slices.size() == 2);
  CHECK(weight.slices[0].spec == sharding::slice_of("q.weight", {9, 6}, 0, 4, 8));
  CHECK(weight.slices[1].spec == sharding::slice_of("k.weight", {4, 6}, 0, 2, 4));
  CHECK(weight.slices[1].offset == 4 * 6);
  CHECK(weight.slices[0].init.kind == sharding::Init::Kind::normal);
  CHECK(weight.slices[0].init.std == 0.5);

  const Parameter& bias = *parameters[1];
  CHECK(bias.name == "qk.bias");
  CHECK(bias.shape == std::vector<int64_t>{6});
  CHECK(bias.placement == parameters::Placement::tp_sharded);
  REQUIRE(bias.slices.size() == 2);
  CHECK(bias.slices[1].spec == sharding::slice_of("k.bias", {4}, 0, 2, 4));
  CHECK(bias.slices[1].offset == 4);
  CHECK(bias.slices[1].init.kind == sharding::Init::Kind::zeros);

  for (const Parameter* parameter : parameters) {  // copies are the bias's as much as the weight's
    CHECK(parameter->slices[0].owned);
    CHECK(parameter->slices[0].copies.parts == 0);
    CHECK_FALSE(parameter->slices[1].owned);
    CHECK(parameter->slices[1].copies.part == 1);
    CHECK(parameter->slices[1].copies.parts == 2);
  }
}

TEST_CASE("a row-parallel linear's bias is replicated and owned by tp rank 0") {
  for (const int rank : {0, 1}) {
    const auto tp = comm::planning_communicator("tp", rank, /*size=*/2);
    RowParallelLinear layer({.name = "o",
                             .in_features = 7,
                             .out_features = 6,
                             .local = tensor_parallel::share_of(7, rank, 2),
                             .bias = Bias::learned,
                             .bias_gradient = TpGradient::partial},
                            *tp);
    const std::vector<Parameter*> parameters = layer.parameters();
    REQUIRE(parameters.size() == 2);
    CHECK(parameters[0]->slices[0].spec ==
          sharding::slice_of("o.weight", {6, 7}, 1, rank == 0 ? 0 : 4, rank == 0 ? 4 : 7));
    CHECK(parameters[0]->slices[0].owned);
    CHECK(parameters[0]->placement == parameters::Placement::tp_sharded);
    CHECK(parameters[1]->placement == parameters::Placement::tp_replicated);
    CHECK(parameters[1]->slices[0].spec == sharding::whole_tensor("o.bias", {6}));
    CHECK(parameters[1]->slices[0].owned == (rank == 0));
    CHECK(parameters[1]->tp_gradient == TpGradient::partial);
  }
}

TEST_CASE("on one rank every replicated gradient is whole") {
  const auto tp = comm::planning_communicator("tp", /*rank=*/0, /*size=*/1);
  Parameter norm;
  tensor_parallel::declare_replicated(
      norm, "norm.weight", {4}, {.kind = sharding::Init::Kind::ones}, TpGradient::partial, *tp);
  CHECK(norm.tp_gradient == TpGradient::whole);
}

TEST_CASE("a vocabulary's table declares its rank's rows") {
  const auto tp = comm::planning_communicator("tp", /*rank=*/1, /*size=*/4);
  const auto table = tensor_parallel::vocab_parallel_table(
      {.name = "lm_head", .vocab_size = 1003, .hidden_size = 6, .init_std = 0.5}, *tp);
  CHECK(table->name == "lm_head.weight");
  CHECK(table->shape == std::vector<int64_t>{251, 6});  // 251, 251, 251, 250
  CHECK(table->role == parameters::Role::vocab_parallel);
  CHECK(table->placement == parameters::Placement::tp_sharded);
  REQUIRE(table->slices.size() == 1);
  CHECK(table->slices[0].spec == sharding::slice_of("lm_head.weight", {1003, 6}, 0, 251, 502));
  CHECK(table->slices[0].owned);
  CHECK(table->slices[0].init.std == 0.5);
}

}  // namespace
}  // namespace tptrain::testing
