// Small states to save and load: three tensors, cut over tp as a model cuts them and over dp as
// ZeRO does, with values that are a function of kind, tensor, step and global element alone.
#pragma once

#include <ATen/Functions.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "sharding/shard_spec.h"
#include "sharding/state_dict.h"

namespace tptrain::testing {

struct GridShape {
  int tp = 1;
  int dp = 1;
  int ranks() const { return tp * dp; }
};

struct TensorPlan {
  std::string name;
  std::vector<int64_t> shape;
  int64_t cut_dim = -1;  // -1: replicated over tp
};

// Sizes that no layout divides evenly: uneven slices and ranges are the rule here.
inline std::vector<TensorPlan> small_model() {
  return {{"model.embed_tokens.weight", {11, 6}, 0},
          {"model.layers.0.mlp.down_proj.weight", {5, 13}, 1},
          {"model.norm.weight", {7}, -1}};
}

inline float expected_value(sharding::StateKind kind, const std::string& name, int64_t element,
                            int64_t step) {
  const auto hash =
      static_cast<int64_t>(name.size()) * 1000 + static_cast<int64_t>(kind.size()) * 100;
  // Not representable numbers, so that a bit lost on the way shows.
  return std::sin(static_cast<float>(hash + element) + 0.1f * static_cast<float>(step));
}

inline std::pair<int64_t, int64_t> part(int64_t total, int parts, int index) {
  return {total * index / parts, total * (index + 1) / parts};
}

/// The pieces of one rank, filled with NaN: what a rank holds before loading.
inline sharding::StateDict empty_state(GridShape grid, int rank,
                                       const std::vector<TensorPlan>& model = small_model()) {
  const int tp_rank = rank % grid.tp;
  const int dp_rank = rank / grid.tp;
  sharding::StateDict state;
  for (const TensorPlan& tensor : model) {
    sharding::ShardSpec spec = sharding::whole_tensor(tensor.name, tensor.shape);
    if (tensor.cut_dim >= 0) {
      const auto [begin, end] =
          part(tensor.shape[static_cast<size_t>(tensor.cut_dim)], grid.tp, tp_rank);
      spec = sharding::slice_of(tensor.name, tensor.shape, tensor.cut_dim, begin, end);
    }
    const auto [begin, end] = part(spec.local_numel(), grid.dp, dp_rank);
    for (const auto kind : {sharding::kMaster, "exp_avg", "exp_avg_sq"}) {
      state.pieces.push_back(
          {.kind = kind,
           .spec = spec,
           .begin = begin,
           .end = end,
           .save = tensor.cut_dim >= 0 || tp_rank == 0,
           .data = at::full({end - begin}, std::numeric_limits<double>::quiet_NaN(), at::kFloat)});
    }
  }
  return state;
}

/// Calls visit(element of the piece's tensor, expected value).
template <typename Visit>
void for_each_expected(const sharding::StatePiece& piece, int64_t step, Visit&& visit) {
  for (const sharding::Run& run : sharding::runs_of(piece.spec, piece.begin, piece.end)) {
    for (int64_t i = 0; i < run.count; ++i) {
      visit(run.local_begin + i - piece.begin,
            expected_value(piece.kind, piece.spec.name, run.global_begin + i, step));
    }
  }
}

inline sharding::StateDict state_of(GridShape grid, int rank, int64_t step,
                                    const std::vector<TensorPlan>& model = small_model()) {
  sharding::StateDict state = empty_state(grid, rank, model);
  for (sharding::StatePiece& piece : state.pieces) {
    float* data = piece.data.data_ptr<float>();
    for_each_expected(piece, step, [&](int64_t i, float value) { data[i] = value; });
  }
  return state;
}

/// Elements whose bits are not those of `step`: 0 where the load was right.
inline int64_t wrong_elements(const sharding::StateDict& state, int64_t step) {
  int64_t wrong = 0;
  for (const sharding::StatePiece& piece : state.pieces) {
    const float* data = piece.data.data_ptr<float>();
    for_each_expected(piece, step, [&](int64_t i, float value) {
      wrong += std::memcmp(&data[i], &value, sizeof value) != 0;
    });
  }
  return wrong;
}

inline checkpoint::TrainState train_state_of(int64_t step, GridShape grid = {}) {
  return {.step = step,
          .updates_done = step - 1,
          .tokens_seen = step * 4096,
          .model_json = R"({"hidden_size": 6, "name": "a \"quoted\" model"})",
          .config_hash = "c0ffee",
          .tokenizer_name = "bytes",
          .tokenizer_hash = "7e57",
          .data_identity = "d47a",
          .global_batch_size = 8,
          .dp_size = grid.dp,
          .tp_size = grid.tp,
          .zero_stage = 1};
}

}  // namespace tptrain::testing
