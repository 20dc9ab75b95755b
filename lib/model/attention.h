// The attention sublayer: packed q, k, v -> rotary embedding -> causal attention with grouped query
// heads -> output projection. Heads are cut over tp, whole groups a rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "kernels/kernels.h"
#include "model/decoder_config.h"
#include "model/kv_cache.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Attention {
 public:
  /// `name` is the sublayer's: "model.layers.0.self_attn".
  Attention(const DecoderConfig& config, const std::string& name, comm::Communicator& tp);

  /// x [S, B, H] whole, positions 0 .. S-1 in `rotary` -> [S, B, H] whole. Collective over tp, in
  /// backward too.
  at::Tensor forward(const at::Tensor& x, const kernels::RotaryTable& rotary);

  /// The same for the S tokens that follow what `cache` holds (`rotary` begins at its length),
  /// without gradients. Adds them to layer `layer` of the cache. Collective over tp.
  at::Tensor forward_cached(const at::Tensor& x, const kernels::RotaryTable& rotary, KvCache& cache,
                            int64_t layer);

  /// In order of use.
  std::vector<sharding::Parameter*> parameters();

 private:
  kernels::AttentionShape shape_;  // local
  tensor_parallel::ColumnParallelLinear qkv_proj_;
  tensor_parallel::RowParallelLinear o_proj_;
};

}  // namespace tptrain::model
