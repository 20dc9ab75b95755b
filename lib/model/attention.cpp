#include "model/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tptrain::model {

namespace {

using kernels::AttentionShape;
using tensor_parallel::Bias;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rotary embedding and attention in one: the rotation runs in the memory of qkv, so that only the
// rotated qkv is kept. The linear that made qkv does not need its output in backward.
class RotaryAttentionFunction : public torch::autograd::Function<RotaryAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, const at::Tensor& cos,
                            const at::Tensor& sin, const AttentionShape& shape) {
    at::Tensor rotated = qkv.detach();  // an alias
    kernels::rotate_(rotated, {.cos = cos, .sin = sin}, shape.heads + shape.kv_heads,
                     shape.head_dim, kernels::Rotation::forward);
    const kernels::AttentionResult result = kernels::causal_attention(rotated, shape);
    ctx->save_for_backward({qkv, cos, sin, result.context, result.logsumexp});
    ctx->saved_data["heads"] = shape.heads;
    ctx->saved_data["kv_heads"] = shape.kv_heads;
    ctx->saved_data["head_dim"] = shape.head_dim;
    return result.context;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const AttentionShape shape = {.heads = ctx->saved_data["heads"].toInt(),
                                  .kv_heads = ctx->saved_data["kv_heads"].toInt(),
                                  .head_dim = ctx->saved_data["head_dim"].toInt()};
    at::Tensor grad_qkv = kernels::causal_attention_backward(
        grads[0].contiguous(), saved[0], {.context = saved[3], .logsumexp = saved[4]}, shape);
    kernels::rotate_(grad_qkv, {.cos = saved[1], .sin = saved[2]}, shape.heads + shape.kv_heads,
                     shape.head_dim, kernels::Rotation::inverse);
    return {grad_qkv, {}, {}, {}};
  }
};

}  // namespace

Attention::Attention(const DecoderConfig& config, const std::string& name, comm::Communicator& tp)
    : shape_({.heads = config.num_attention_heads / tp.size(),
              .kv_heads = config.num_key_value_heads / tp.size(),
              .head_dim = config.head_dim}),
      qkv_proj_({.name = name + ".qkv_proj",
                 .outputs = {{name + ".q_proj", config.num_attention_heads * config.head_dim},
                             {name + ".k_proj", config.num_key_value_heads * config.head_dim},
                             {name + ".v_proj", config.num_key_value_heads * config.head_dim}},
                 .in_features = config.hidden_size,
                 .bias = config.qkv_bias ? Bias::learned : Bias::none,
                 .init_std = config.initializer_range},
                tp),
      o_proj_({.name = name + ".o_proj",
               .in_features = config.num_attention_heads * config.head_dim,
               .out_features = config.hidden_size,
               .bias = config.o_bias ? Bias::learned : Bias::none,
               .init_std = config.initializer_range},
              tp) {}

at::Tensor Attention::forward(const at::Tensor& x, const kernels::RotaryTable& rotary) {
  const at::Tensor qkv = qkv_proj_.forward(x);  // [S, B, (heads + 2 * kv_heads)/tp * D]
  const at::Tensor context =
      RotaryAttentionFunction::apply(qkv, rotary.cos, rotary.sin, shape_);  // [S, B, heads/tp * D]
  return o_proj_.forward(context);                                          // [S, B, H]
}

at::Tensor Attention::forward_cached(const at::Tensor& x, const kernels::RotaryTable& rotary,
                                     KvCache& cache, int64_t layer) {
  at::Tensor qkv = qkv_proj_.forward(x);  // [S, B, (heads + 2 * kv_heads)/tp * D]
  kernels::rotate_(qkv, rotary, shape_.heads + shape_.kv_heads, shape_.head_dim,
                   kernels::Rotation::forward);
  const int64_t q_width = shape_.heads * shape_.head_dim;
  const int64_t kv_width = shape_.kv_heads * shape_.head_dim;
  const KvCache::View seen = cache.append(layer, qkv.narrow(2, q_width, kv_width),
                                          qkv.narrow(2, q_width + kv_width, kv_width));
  const at::Tensor context = kernels::cached_attention(qkv.narrow(2, 0, q_width).contiguous(),
                                                       seen.keys, seen.values, shape_);
  return o_proj_.forward(context);  // [S, B, H]
}

std::vector<sharding::Parameter*> Attention::parameters() {
  std::vector<sharding::Parameter*> all = qkv_proj_.parameters();
  for (sharding::Parameter* parameter : o_proj_.parameters()) all.push_back(parameter);
  return all;
}

}  // namespace tptrain::model
