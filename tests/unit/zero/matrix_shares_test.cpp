// Who makes which matrix orthogonal: each once, alike in every layout's view, and evenly.
#include "zero/matrix_shares.h"

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "optim/update_rule.h"
#include "support/catch.h"
#include "zero/layout.h"

namespace tptrain::zero {
namespace {

using parameters::Parameter;

/// Layers of Qwen2.5-0.5B's shapes as one tp rank holds them, rows or columns cut evenly.
struct Layers {
  std::vector<std::unique_ptr<Parameter>> parameters;
  std::vector<parameters::ParameterBlock> blocks;

  Layers(int count, int tp_rank, int tp_size) {
    blocks.push_back({.name = "embedding"});
    for (int layer = 0; layer < count; ++layer) {
      blocks.push_back({.name = "layer"});
      add("qkv", {{"q", 896, 896}, {"k", 128, 896}, {"v", 128, 896}}, 0, tp_rank, tp_size);
      add("o", {{"o", 896, 896}}, 1, tp_rank, tp_size);
      add("gate_up", {{"gate", 4864, 896}, {"up", 4864, 896}}, 0, tp_rank, tp_size);
      add("down", {{"down", 896, 4864}}, 1, tp_rank, tp_size);
    }
  }

 private:
  struct Tensor {
    const char* name;
    int64_t rows, columns;
  };
  void add(const char* name, const std::vector<Tensor>& tensors, int dim, int rank, int size) {
    auto parameter = std::make_unique<Parameter>();
    parameter->name = name;
    parameter->role = dim == 0 ? parameters::Role::column_parallel : parameters::Role::row_parallel;
    parameter->placement = parameters::Placement::tp_sharded;
    int64_t rows = 0, columns = 0;
    for (const Tensor& tensor : tensors) {
      const int64_t cut = (dim == 0 ? tensor.rows : tensor.columns) / size;
      parameter->slices.push_back(
          {.spec =
               sharding::slice_of(std::string(tensor.name) + std::to_string(blocks.size()),
                                  {tensor.rows, tensor.columns}, dim, rank * cut, (rank + 1) * cut),
           .offset = rows * columns});
      rows += dim == 0 ? cut : tensor.rows;
      columns = dim == 0 ? tensor.columns : cut;
    }
    parameter->shape = {rows, columns};
    blocks.back().parameters.push_back(parameter.get());
    parameters.push_back(std::move(parameter));
  }
};

}  // namespace

TEST_CASE("each matrix has one owner, the same seen from every tp rank, and work is even",
          "[zero]") {
  for (const int tp_size : {1, 2, 4}) {
    for (const int dp_size : {1, 2, 4}) {
      const MatrixGrid grid{.tp_size = tp_size, .dp_size = dp_size};
      std::map<std::string, std::pair<int, int>> owners;
      for (int tp_rank = 0; tp_rank < tp_size; ++tp_rank) {
        const Layers layers(24, tp_rank, tp_size);
        const auto buckets =
            lay_out(layers.blocks, dp_size, &optim::update_rule(config::OptimizerType::muon));
        CHECK(blocks_per_part(buckets, grid) == tp_size * dp_size);
        std::map<std::pair<int, int>, double> work;
        const std::vector<MatrixShare> shares = share_matrices(buckets, grid);
        CHECK(shares.size() == 24 * 7);
        double all = 0;
        for (const MatrixShare& share : shares) {
          const std::pair owner{share.tp_owner, share.dp_owner};
          CHECK((0 <= owner.first && owner.first < tp_size));
          CHECK((0 <= owner.second && owner.second < dp_size));
          const double cost = optim::newton_schulz_flops(share.rows(), share.columns(), 5);
          work[owner] += cost;
          all += cost;
          const auto [place, is_new] = owners.emplace(share.slice->spec.name, owner);
          CHECK(is_new == (tp_rank == 0));
          CHECK(place->second == owner);
        }
        CAPTURE(tp_size, dp_size);
        for (const auto& [owner, cost] : work) CHECK(cost <= 1.35 * all / grid.ranks());
        CHECK(work.size() == static_cast<size_t>(grid.ranks()));
      }
    }
  }
}

TEST_CASE("a batch is matrices of one size in a layer, whatever the layout", "[zero]") {
  const Layers whole(3, 0, 1), cut(3, 1, 2);
  const auto of_one = lay_out(whole.blocks, 1, &optim::update_rule(config::OptimizerType::muon));
  const auto of_many = lay_out(cut.blocks, 3, &optim::update_rule(config::OptimizerType::muon));
  const auto one = share_matrices(of_one, {});
  const auto many = share_matrices(of_many, {.tp_size = 2, .dp_size = 3});
  REQUIRE(one.size() == many.size());
  for (size_t i = 0; i < one.size(); ++i) {
    CHECK(one[i].batch == many[i].batch);
    CHECK(one[i].slice->spec.name == many[i].slice->spec.name);
  }
  std::set<int> of_a_layer;  // q with o, k with v, gate with up with down
  for (size_t i = 0; i < 7; ++i) of_a_layer.insert(one[i].batch);
  CHECK(of_a_layer.size() == 3);
}

TEST_CASE("another rule's buckets have no matrices, and parts of one block", "[zero]") {
  const Layers layers(3, 0, 1);
  for (const optim::UpdateRule* rule : {static_cast<const optim::UpdateRule*>(nullptr),
                                        &optim::update_rule(config::OptimizerType::adamw)}) {
    const auto buckets = lay_out(layers.blocks, 2, rule);
    CHECK(share_matrices(buckets, {.tp_size = 1, .dp_size = 2}).empty());
    CHECK(blocks_per_part(buckets, {.tp_size = 1, .dp_size = 2}) == 1);
    CHECK(matrix_memory(buckets, {.tp_size = 1, .dp_size = 2}).bytes(at::kCPU) == 0);
  }
}

}  // namespace tptrain::zero
