#include "model/attention.h"

#include <ATen/ATen.h>

#include <utility>

namespace tptrain::model {

namespace {

using tensor_parallel::Bias;
using tensor_parallel::Range;

Range in_elements(const Range& heads, int64_t head_dim) {
  return {.begin = heads.begin * head_dim, .end = heads.end * head_dim};
}

tensor_parallel::ColumnParallelLinear::Options qkv_options(const DecoderConfig& config,
                                                           const std::string& name,
                                                           const HeadShare& share,
                                                           const LinearSettings& linears,
                                                           int tp_size) {
  const int64_t head_dim = config.head_dim;
  const auto kv = [&](const char* projection) {
    return tensor_parallel::ColumnParallelLinear::Output{
        .name = name + projection,
        .features = config.num_key_value_heads * head_dim,
        .local = in_elements(share.kv_heads, head_dim),
        .owned = share.owns_kv,
        .copies = share.kv_copies,
        .adapter = linears.adapter_of(name + projection)};
  };
  return {.name = name + ".qkv_proj",
          .outputs = {{.name = name + ".q_proj",
                       .features = config.num_attention_heads * head_dim,
                       .local = in_elements(share.heads, head_dim),
                       .adapter = linears.adapter_of(name + ".q_proj")},
                      kv(".k_proj"),
                      kv(".v_proj")},
          .in_features = config.hidden_size,
          .bias = config.qkv_bias ? Bias::learned : Bias::none,
          .init_std = config.initializer_range,
          .fp8 = linears.fp8_of(tp_size,
                                [&](int rank) {
                                  const HeadShare of = head_share(config, rank, tp_size);
                                  return std::pair(
                                      (of.heads.size() + 2 * of.kv_heads.size()) * head_dim,
                                      config.hidden_size);
                                }),
          .low_rank = linears.low_rank()};
}

// Every rank has the whole weight and sees its own heads alone: the gradient is a partial sum over
// tp, whatever happens to the sequence. Ranks with copies of a kv head each add their share to it.
std::unique_ptr<parameters::Parameter> norm_weight(const DecoderConfig& config,
                                                   const std::string& name,
                                                   const comm::Communicator& tp) {
  if (!config.qk_norm) return nullptr;
  auto weight = std::make_unique<parameters::Parameter>();
  tensor_parallel::declare_replicated(*weight, name + ".weight", {config.head_dim},
                                      {.kind = sharding::Init::Kind::ones},
                                      parameters::TpGradient::partial, tp);
  return weight;
}

}  // namespace

Attention::Attention(const DecoderConfig& config, const std::string& name,
                     const LinearSettings& linears, const comm::Communicator& tp)
    : positions_(config.positions),
      norm_eps_(config.norm_eps),
      share_(head_share(config, tp.rank(), tp.size())),
      shape_({.heads = share_.heads.size(),
              .kv_heads = share_.kv_heads.size(),
              .head_dim = config.head_dim}),
      qkv_proj_(qkv_options(config, name, share_, linears, tp.size()), tp),
      q_norm_(norm_weight(config, name + ".q_norm", tp)),
      k_norm_(norm_weight(config, name + ".k_norm", tp)),
      o_proj_({.name = name + ".o_proj",
               .in_features = config.num_attention_heads * config.head_dim,
               .out_features = config.hidden_size,
               .local = in_elements(share_.heads, config.head_dim),
               .bias = config.o_bias ? Bias::learned : Bias::none,
               .init_std = config.initializer_range,
               .bias_gradient = linears.replicated_gradient,
               .fp8 = linears.fp8_of(tp.size(),
                                     [&](int rank) {
                                       const HeadShare of = head_share(config, rank, tp.size());
                                       return std::pair(config.hidden_size,
                                                        of.heads.size() * config.head_dim);
                                     }),
               .adapter = linears.adapter_of(name + ".o_proj"),
               .low_rank = linears.low_rank()},
              tp) {}

kernels::HeadNorm Attention::head_norm() const {
  return {.q_weight = q_norm_->data, .k_weight = k_norm_->data, .eps = norm_eps_};
}

void Attention::norm_and_rotate(at::Tensor& qkv, const kernels::RotaryTable& rotary) const {
  if (q_norm_) kernels::head_rms_norm_(qkv, head_norm(), shape_);
  if (positions_ == Positions::rotary)
    kernels::rotate_(qkv, rotary, qk_heads(), shape_.head_dim, kernels::Rotation::forward);
}

Attention::Qkv Attention::qkv(tensor_parallel::GatheredSequence& x,
                              const kernels::RotaryTable& rotary,
                              tensor_parallel::LinearInput* input) const {
  Qkv result;
  result.packed = qkv_proj_.forward(x, input);
  if (q_norm_)
    result.unnormed = result.packed.narrow(2, 0, qk_heads() * shape_.head_dim).contiguous();
  norm_and_rotate(result.packed, rotary);
  return result;
}

Attention::Kept Attention::attend(const at::Tensor& qkv, const kernels::Dropout& dropout,
                                  const kernels::Documents* documents) const {
  if (dropout.probability > 0)
    return {.context = kernels::causal_attention_dropout(qkv, shape_, dropout), .logsumexp = {}};
  kernels::AttentionResult result = kernels::causal_attention(qkv, shape_, documents);
  return {.context = std::move(result.context), .logsumexp = std::move(result.logsumexp)};
}

at::Tensor Attention::attend_backward(const at::Tensor& grad_context, const Qkv& qkv,
                                      const Kept& kept, const kernels::RotaryTable& rotary,
                                      const kernels::Dropout& dropout,
                                      const kernels::Documents* documents,
                                      tensor_parallel::LinearGradient& grad) {
  const bool rotated = positions_ == Positions::rotary;
  at::Tensor grad_qkv;
  if (dropout.probability > 0) {
    grad_qkv =
        kernels::causal_attention_dropout_backward(grad_context, qkv.packed, shape_, dropout);
    if (rotated)
      kernels::rotate_(grad_qkv, rotary, qk_heads(), shape_.head_dim, kernels::Rotation::inverse);
  } else {
    kernels::ColumnTotals bias =
        q_norm_ ? kernels::ColumnTotals{} : qkv_proj_.bias_totals();  // the norms change it again
    grad_qkv = kernels::causal_attention_backward(
        grad_context, qkv.packed, {.context = kept.context, .logsumexp = kept.logsumexp}, shape_,
        rotated ? &rotary : nullptr, documents, &bias);
    grad.bias_added = bias.added;
  }
  if (q_norm_) {
    at::Tensor q_grad = tensor_parallel::gradient_or_scratch(*q_norm_);
    at::Tensor k_grad = tensor_parallel::gradient_or_scratch(*k_norm_);
    kernels::head_rms_norm_backward_(grad_qkv, qkv.unnormed, head_norm(), shape_, q_grad, k_grad);
  }
  return grad_qkv;
}

at::Tensor Attention::forward_cached(const at::Tensor& x, const kernels::RotaryTable& rotary,
                                     KvCache& cache, int64_t layer) const {
  at::Tensor qkv = qkv_proj_.forward(x);
  norm_and_rotate(qkv, rotary);
  const int64_t q_width = shape_.heads * shape_.head_dim;
  const int64_t kv_width = shape_.kv_heads * shape_.head_dim;
  const KvCache::View seen = cache.append(layer, qkv.narrow(2, q_width, kv_width),
                                          qkv.narrow(2, q_width + kv_width, kv_width));
  return o_proj_.forward(kernels::cached_attention(qkv.narrow(2, 0, q_width).contiguous(),
                                                   seen.keys, seen.values, shape_));
}

std::vector<parameters::Parameter*> Attention::parameters() {
  std::vector<parameters::Parameter*> all = qkv_proj_.parameters();
  if (q_norm_) all.insert(all.end(), {q_norm_.get(), k_norm_.get()});
  for (parameters::Parameter* parameter : o_proj_.parameters()) all.push_back(parameter);
  return all;
}

void Attention::add_fp8(std::vector<tensor_parallel::Fp8Linear*>& linears) const {
  if (qkv_proj_.fp8() != nullptr) linears.push_back(qkv_proj_.fp8());
  if (o_proj_.fp8() != nullptr) linears.push_back(o_proj_.fp8());
}

void Attention::add_linears_in_bf16(std::vector<std::string>& names) const {
  if (!qkv_proj_.runs_in_fp8()) names.push_back(qkv_proj_.name());
  if (!o_proj_.runs_in_fp8()) names.push_back(o_proj_.name());
}

}  // namespace tptrain::model
