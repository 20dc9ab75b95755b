// The attention sublayer: packed q, k, v -> rotary embedding -> causal attention with grouped query
// heads -> output projection. Heads are cut over tp (head_share.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "kernels/kernels.h"
#include "model/decoder_config.h"
#include "model/head_share.h"
#include "model/kv_cache.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Attention {
 public:
  /// `name` is the sublayer's: "model.layers.0.self_attn". `replicated_gradient`: what a replicated
  /// parameter behind the region gets (partial on sequence slices).
  Attention(const DecoderConfig& config, const std::string& name,
            sharding::TpGradient replicated_gradient, const comm::Communicator& tp);

  /// What backward needs besides x and qkv.
  struct Kept {
    at::Tensor context;    // [S, B, heads/tp * D]
    at::Tensor logsumexp;  // undefined with dropout of the probabilities
  };
  /// x [S, B, H] whole, positions 0 .. S-1 in `rotary` -> rotated packed qkv [S, B, (heads + 2
  /// kv_heads)/tp * D].
  at::Tensor rotated_qkv(const at::Tensor& x, const kernels::RotaryTable& rotary) const;
  /// Attention within the sequence; `dropout` of the probabilities (0: the fused path).
  Kept attend(const at::Tensor& qkv, const kernels::Dropout& dropout) const;
  /// context -> the partial output [S, B, H], to be summed over tp.
  at::Tensor project(const at::Tensor& context) const { return o_proj_.forward(context); }
  /// Adds the bias of the output projection, if any, to the sum, in place.
  void add_bias(at::Tensor& sum) const { o_proj_.add_bias(sum); }

  void bias_backward(const at::Tensor& grad_sum) { o_proj_.bias_backward(grad_sum); }
  /// Gradient of project()'s output, whole -> gradient of the context.
  at::Tensor project_backward(const at::Tensor& grad_output, const at::Tensor& context) {
    return o_proj_.backward(grad_output, context);
  }
  /// -> gradient of qkv before rotation.
  at::Tensor attend_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                             const Kept& kept, const kernels::RotaryTable& rotary,
                             const kernels::Dropout& dropout) const;
  /// -> the partial gradient of x.
  at::Tensor qkv_backward(const at::Tensor& grad_qkv, const at::Tensor& x) {
    return qkv_proj_.backward(grad_qkv, x);
  }

  /// For generation: the partial output for S tokens that follow what `cache` holds (`rotary`
  /// begins at its length). Adds them to layer `layer` of the cache.
  at::Tensor forward_cached(const at::Tensor& x, const kernels::RotaryTable& rotary, KvCache& cache,
                            int64_t layer) const;

  int64_t first_head() const { return share_.heads.begin; }
  /// In order of use.
  std::vector<sharding::Parameter*> parameters();

 private:
  HeadShare share_;
  kernels::AttentionShape shape_;  // local
  tensor_parallel::ColumnParallelLinear qkv_proj_;
  tensor_parallel::RowParallelLinear o_proj_;
};

}  // namespace tptrain::model
