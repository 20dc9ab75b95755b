// The attention sublayer: packed q, k, v -> RMSNorm of each head of q and k (some families) ->
// rotary embedding (but for learned positions) -> causal attention with grouped query heads ->
// output projection. Heads are cut over tp (head_share.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "kernels/kernels.h"
#include "model/decoder_config.h"
#include "model/head_share.h"
#include "model/kv_cache.h"
#include "model/linear_settings.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Attention {
 public:
  /// `name` is the sublayer's: "model.layers.0.self_attn".
  Attention(const DecoderConfig& config, const std::string& name, const LinearSettings& linears,
            const comm::Communicator& tp);

  /// What backward needs besides x and qkv.
  struct Kept {
    at::Tensor context;    // [S, B, heads/tp * D]
    at::Tensor logsumexp;  // undefined with dropout of the probabilities
  };
  struct Qkv {
    at::Tensor packed;    // [S, B, (heads + 2 kv_heads)/tp * D], normed and rotated
    at::Tensor unnormed;  // [S, B, (heads + kv_heads)/tp * D]: q and k before their norm, for
                          // backward; undefined where there is none
  };
  /// Begins to gather x for qkv(), or, with what it left in `before`, for its weights' gradients.
  tensor_parallel::GatheredSequence start_gather(
      at::Tensor slice, const tensor_parallel::SequenceRegion& region,
      const tensor_parallel::LinearInput* before = nullptr) const {
    return qkv_proj_.start_gather(std::move(slice), region, before);
  }
  /// Begins to gather the gradient of project()'s output.
  tensor_parallel::GatheredSequence start_gather_gradient(
      at::Tensor slice, const tensor_parallel::SequenceRegion& region) const {
    return o_proj_.start_gather(std::move(slice), region);
  }
  /// x [S, B, H], of the positions in `rotary`.
  Qkv qkv(tensor_parallel::GatheredSequence& x, const kernels::RotaryTable& rotary,
          tensor_parallel::LinearInput* input) const;
  /// Attention within the sequence, or within each of its `documents` (may be null); `dropout` of
  /// the probabilities (0: the fused path), not with documents.
  Kept attend(const at::Tensor& qkv, const kernels::Dropout& dropout,
              const kernels::Documents* documents) const;
  /// context -> the output [rows, B, H], its sum over tp begun.
  tensor_parallel::ReducedSequence project(const at::Tensor& context,
                                           const tensor_parallel::SequenceRegion& region,
                                           tensor_parallel::LinearInput* input) const {
    return o_proj_.forward(context, region, input);
  }

  void bias_backward(const at::Tensor& grad_sum, const at::Tensor& column_sums) {
    o_proj_.bias_backward(grad_sum, column_sums);
  }
  /// Gradient of project()'s output -> gradient of the context. `grad` here and below: what the
  /// weights' gradients need of the same gradient.
  at::Tensor project_input_gradient(tensor_parallel::GatheredSequence& grad_output,
                                    const tensor_parallel::LinearInput& input,
                                    tensor_parallel::LinearGradient& grad) const {
    return o_proj_.input_gradient(grad_output, input, grad);
  }
  void project_weight_gradient(const at::Tensor& grad_output, const at::Tensor& context,
                               const tensor_parallel::LinearGradient& grad,
                               const tensor_parallel::LinearInput& input) {
    o_proj_.weight_gradient(grad_output, context, grad, input);
  }
  /// -> gradient of qkv before norm and rotation; adds those of the norms' weights.
  at::Tensor attend_backward(const at::Tensor& grad_context, const Qkv& qkv, const Kept& kept,
                             const kernels::RotaryTable& rotary, const kernels::Dropout& dropout,
                             const kernels::Documents* documents,
                             tensor_parallel::LinearGradient& grad);
  /// -> the gradient of x, its sum over tp begun.
  tensor_parallel::ReducedSequence qkv_input_gradient(const at::Tensor& grad_qkv,
                                                      const tensor_parallel::SequenceRegion& region,
                                                      const tensor_parallel::LinearInput& input,
                                                      tensor_parallel::LinearGradient& grad) const {
    return qkv_proj_.input_gradient(grad_qkv, region, input, grad);
  }
  void qkv_weight_gradient(const at::Tensor& grad_qkv, const at::Tensor& x,
                           const tensor_parallel::LinearGradient& grad,
                           const tensor_parallel::LinearInput& input) {
    qkv_proj_.weight_gradient(grad_qkv, x, grad, input);
  }

  /// For generation: the partial output, to be summed over tp, for S tokens that follow what
  /// `cache` holds (`rotary` begins at its length). Adds them to layer `layer` of the cache.
  at::Tensor forward_cached(const at::Tensor& x, const kernels::RotaryTable& rotary, KvCache& cache,
                            int64_t layer) const;

  int64_t first_head() const { return share_.heads.begin; }
  /// In order of use.
  std::vector<parameters::Parameter*> parameters();
  /// Adds the names of the linears that do not run in FP8.
  void add_linears_in_bf16(std::vector<std::string>& names) const;
  /// Adds those that do.
  void add_fp8(std::vector<tensor_parallel::Fp8Linear*>& linears) const;

 private:
  kernels::HeadNorm head_norm() const;
  /// In place: norm, if any, and rotation of q and k.
  void norm_and_rotate(at::Tensor& qkv, const kernels::RotaryTable& rotary) const;
  int64_t qk_heads() const { return shape_.heads + shape_.kv_heads; }

  Positions positions_;
  double norm_eps_;
  HeadShare share_;
  kernels::AttentionShape shape_;  // local
  tensor_parallel::ColumnParallelLinear qkv_proj_;
  std::unique_ptr<parameters::Parameter> q_norm_;  // [D]; null: no norm
  std::unique_ptr<parameters::Parameter> k_norm_;  // [D]
  tensor_parallel::RowParallelLinear o_proj_;
};

}  // namespace tptrain::model
