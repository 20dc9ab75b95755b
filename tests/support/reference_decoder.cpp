#include "support/reference_decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>

#include "base/text.h"
#include "model/decoder.h"
#include "support/gradient_scale.h"

namespace tptrain::testing {

namespace {

using model::DecoderConfig;

class Reference {
 public:
  Reference(const DecoderConfig& config, const Tensors& weights)
      : config_(config), weights_(weights) {}

  at::Tensor logits(const at::Tensor& ids) const {  // ids [S, B] -> [S, B, V]
    const at::Tensor& table = weights_.at("model.embed_tokens.weight");
    at::Tensor x = at::index_select(table, 0, ids.reshape({-1}))
                       .view({ids.size(0), ids.size(1), config_.hidden_size});
    if (config_.positions == model::Positions::learned)
      x = x + weights_.at("model.embed_positions.weight").narrow(0, 0, ids.size(0)).unsqueeze(1);
    for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
      const std::string layer = cat("model.layers.", i);
      x = x + attention(norm(x, layer + ".input_layernorm"), layer + ".self_attn");
      x = x + mlp(norm(x, layer + ".post_attention_layernorm"), layer + ".mlp");
    }
    const at::Tensor& head = config_.tie_word_embeddings ? table : weights_.at("lm_head.weight");
    return at::matmul(norm(x, "model.norm"), head.t());
  }

 private:
  at::Tensor linear(const at::Tensor& x, const std::string& name) const {
    const at::Tensor y = at::matmul(x, weights_.at(name + ".weight").t());
    const auto bias = weights_.find(name + ".bias");
    return bias == weights_.end() ? y : y + bias->second;
  }

  at::Tensor norm(const at::Tensor& x, const std::string& name) const {
    if (config_.norm == model::Norm::rms) return rms_norm(x, name);
    return at::layer_norm(x, {config_.hidden_size}, weights_.at(name + ".weight"),
                          weights_.at(name + ".bias"), config_.norm_eps);
  }
  at::Tensor rms_norm(const at::Tensor& x, const std::string& name) const {  // of the last dim
    const at::Tensor mean_square = x.pow(2).mean(-1, /*keepdim=*/true);
    return x * at::rsqrt(mean_square + config_.norm_eps) * weights_.at(name + ".weight");
  }

  // As transformers' _compute_llama3_parameters writes it, by wave lengths.
  at::Tensor scaled(const at::Tensor& frequency) const {
    const model::RotaryScaling& scaling = config_.rope_scaling;
    if (scaling.kind == model::RotaryScaling::Kind::none) return frequency;
    if (scaling.kind == model::RotaryScaling::Kind::linear) return frequency / scaling.factor;
    const auto context = static_cast<double>(scaling.original_max_position_embeddings);
    const at::Tensor wave_length = 2 * M_PI / frequency;
    const at::Tensor smooth = (context / wave_length - scaling.low_freq_factor) /
                              (scaling.high_freq_factor - scaling.low_freq_factor);
    const at::Tensor mixed = (1 - smooth) * frequency / scaling.factor + smooth * frequency;
    const at::Tensor stretched = at::where(wave_length > context / scaling.low_freq_factor,
                                           frequency / scaling.factor, mixed);
    return at::where(wave_length < context / scaling.high_freq_factor, frequency, stretched);
  }

  // Transformers' rotate_half: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin). x [B, heads, S, D]
  at::Tensor rotate(const at::Tensor& x) const {
    if (config_.positions == model::Positions::learned) return x;
    const int64_t half = config_.head_dim / 2;
    const auto fp64 = x.options().dtype(at::kDouble);
    const at::Tensor frequency = at::pow(
        config_.rope_theta, at::arange(half, fp64) * (-2.0 / static_cast<double>(2 * half)));
    const at::Tensor angle = at::outer(at::arange(x.size(2), fp64), scaled(frequency));  // [S, D/2]
    const at::Tensor cos = angle.cos().to(x.scalar_type());
    const at::Tensor sin = angle.sin().to(x.scalar_type());
    const at::Tensor x1 = x.narrow(3, 0, half);
    const at::Tensor x2 = x.narrow(3, half, half);
    return at::cat({x1 * cos - x2 * sin, x2 * cos + x1 * sin}, 3);
  }

  at::Tensor heads_of(const at::Tensor& x, int64_t heads) const {  // -> [B, heads, S, D]
    return x.view({x.size(0), x.size(1), heads, config_.head_dim}).permute({1, 2, 0, 3});
  }

  at::Tensor attention(const at::Tensor& x, const std::string& name) const {
    const int64_t length = x.size(0);
    const int64_t groups = config_.num_attention_heads / config_.num_key_value_heads;
    const auto projected = [&](const char* which, int64_t heads) {
      const at::Tensor rows = heads_of(linear(x, cat(name, ".", which, "_proj")), heads);
      return rotate(config_.qk_norm ? rms_norm(rows, cat(name, ".", which, "_norm")) : rows);
    };
    const at::Tensor q = projected("q", config_.num_attention_heads);
    const at::Tensor k = projected("k", config_.num_key_value_heads).repeat_interleave(groups, 1);
    const at::Tensor v = heads_of(linear(x, name + ".v_proj"), config_.num_key_value_heads)
                             .repeat_interleave(groups, 1);
    const at::Tensor future =
        at::ones({length, length}, x.options().dtype(at::kBool)).triu(/*diagonal=*/1);
    const double scale = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
    const at::Tensor scores = (at::matmul(q, k.transpose(2, 3)) * scale)
                                  .masked_fill(future, -std::numeric_limits<double>::infinity());
    const at::Tensor context = at::matmul(at::softmax(scores, -1), v);  // [B, heads, S, D]
    return linear(context.permute({2, 0, 1, 3}).reshape({length, x.size(1), -1}), name + ".o_proj");
  }

  at::Tensor mlp(const at::Tensor& x, const std::string& name) const {
    if (config_.feed_forward == model::FeedForward::gelu)
      return linear(at::gelu(linear(x, name + ".up_proj"), "tanh"), name + ".down_proj");
    return linear(at::silu(linear(x, name + ".gate_proj")) * linear(x, name + ".up_proj"),
                  name + ".down_proj");
  }

  const DecoderConfig& config_;
  const Tensors& weights_;
};

}  // namespace

ReferenceResult reference_step(const DecoderConfig& config, const Tensors& weights,
                               const at::Tensor& ids, const at::Tensor& targets,
                               double inverse_target_tokens, double z_loss) {
  Tensors leaves;
  for (const auto& [name, weight] : weights) {
    leaves[name] = weight.detach().clone().requires_grad_(true);
  }
  const at::Tensor flat = targets.reshape({-1});
  const at::Tensor logits = Reference(config, leaves).logits(ids).view({flat.size(0), -1});
  const at::Tensor logsumexp = at::logsumexp(logits, {1});
  const at::Tensor of_target = logits.gather(1, flat.clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor counted = flat.ne(-100).to(logits.scalar_type()) * inverse_target_tokens;
  const at::Tensor loss = ((logsumexp - of_target) * counted).sum();
  const at::Tensor squared_logsumexp = (logsumexp.square() * counted).sum();
  (loss + squared_logsumexp * z_loss).backward();
  ReferenceResult result{
      .loss = loss.detach(), .squared_logsumexp = squared_logsumexp.detach(), .gradients = {}};
  for (const auto& [name, leaf] : leaves) result.gradients[name] = leaf.grad();
  return result;
}

at::Tensor reference_logits(const DecoderConfig& config, const Tensors& weights,
                            const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  return Reference(config, weights).logits(ids);
}

Tensors initial_weights(const DecoderConfig& config, uint64_t seed) {
  const auto one = comm::planning_communicator("tp", /*rank=*/0, /*size=*/1);
  const model::Decoder decoder(config, *one);
  Tensors weights;
  for (const parameters::Parameter* parameter : decoder.parameters()) {
    for (const parameters::NamedSlice& slice : parameter->slices) {
      at::Tensor values = at::empty({slice.spec.global_numel()}, at::kFloat);
      sharding::fill_initial(values, slice.spec, 0, values.numel(), slice.init, seed);
      weights[slice.spec.name] = values.view(slice.spec.global_shape);
    }
  }
  return weights;
}

Tensors noisy_weights(const DecoderConfig& config, uint64_t seed) {
  Tensors weights = initial_weights(config, seed);
  for (auto& [name, weight] : weights) {
    at::Tensor noise = at::empty({weight.numel()}, at::kFloat);
    const sharding::Init normal = {.kind = sharding::Init::Kind::normal, .std = 0.1};
    sharding::fill_initial(noise, sharding::whole_tensor(name, weight.sizes().vec()), 0,
                           noise.numel(), normal, seed + 1);
    weight.add_(noise.view(weight.sizes()));
  }
  return weights;
}

at::Tensor normal_values(const std::string& name, const std::vector<int64_t>& shape) {
  const sharding::ShardSpec spec = sharding::whole_tensor(name, shape);
  at::Tensor flat = at::empty({spec.global_numel()}, at::kFloat);
  const sharding::Init normal = {.kind = sharding::Init::Kind::normal, .std = 1.0};
  sharding::fill_initial(flat, spec, 0, flat.numel(), normal, /*seed=*/3);
  return flat.view(shape);
}

at::Tensor token_ids(const std::string& name, int64_t length, int64_t batch, int64_t vocab_size) {
  return (normal_values(name, {length, batch}).abs() * 1e4).to(at::kLong).remainder(vocab_size);
}

at::Tensor slice_of_global(const at::Tensor& global, const sharding::ShardSpec& spec) {
  if (spec.whole()) return global.clone();
  return global.narrow(spec.dim, spec.begin, spec.end - spec.begin).clone();
}

void bind_parameters(const std::vector<parameters::Parameter*>& parameters,
                     const Tensors& weights) {
  for (parameters::Parameter* parameter : parameters) {
    std::vector<at::Tensor> parts;
    for (const parameters::NamedSlice& slice : parameter->slices) {
      parts.push_back(slice_of_global(weights.at(slice.spec.name), slice.spec).flatten());
    }
    parameter->data = at::cat(parts).view(parameter->shape);
    parameter->main_grad = at::zeros(parameter->shape, at::kFloat);
  }
}

void sum_gradients_over_tp(const std::vector<parameters::Parameter*>& parameters,
                           comm::Communicator& tp) {
  for (parameters::Parameter* parameter : parameters) {
    if (parameter->tp_gradient == parameters::TpGradient::partial)
      tp.all_reduce(parameter->main_grad, comm::ReduceOp::sum);
    for (const parameters::NamedSlice& slice : parameter->slices) {
      if (slice.copies.parts == 0) continue;
      at::Tensor own =
          parameter->main_grad.flatten().narrow(0, slice.offset, slice.spec.local_numel());
      at::Tensor of_parts = at::zeros({slice.copies.parts, own.numel()}, own.options());
      of_parts[slice.copies.part].copy_(own);
      tp.all_reduce(of_parts, comm::ReduceOp::sum);
      own.copy_(of_parts[slice.copies.part]);  // flatten() of contiguous memory is a view
    }
  }
}

Tensors global_gradients(const std::vector<parameters::Parameter*>& parameters) {
  Tensors gradients;
  for (const parameters::Parameter* parameter : parameters) {
    const at::Tensor flat = parameter->main_grad.flatten();
    for (const parameters::NamedSlice& slice : parameter->slices) {
      gradients[slice.spec.name] = flat.narrow(0, slice.offset, slice.spec.local_numel())
                                       .clone()
                                       .view(slice.spec.global_shape);
    }
  }
  return gradients;
}

double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  if (actual.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
  const double largest = expected.abs().max().item<double>();
  const double error =
      (actual.detach().to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  // Negated, so that a NaN counts as the largest error and not as none.
  if (!(error <= std::numeric_limits<double>::max()))
    return std::numeric_limits<double>::infinity();
  return largest > 0 ? error / largest : error;
}

GradientError gradient_error(const std::vector<parameters::Parameter*>& parameters,
                             const Tensors& gradients) {
  GradientError result;
  for (const parameters::Parameter* parameter : parameters) {
    const at::Tensor flat = parameter->main_grad.flatten();
    for (const parameters::NamedSlice& slice : parameter->slices) {
      const at::Tensor& global = gradients.at(slice.spec.name);
      const at::Tensor part =
          flat.narrow(0, slice.offset, slice.spec.local_numel()).view(slice.spec.local_shape());
      // Against the whole tensor's largest element: a slice of small values is held to no other
      // rule.
      const double largest =
          gradients.at(gradient_scale_of(slice.spec.name, gradients)).abs().max().item<double>();
      const double error =
          (part - slice_of_global(global, slice.spec)).abs().max().item<double>() / largest;
      if (error <= result.worst && !result.name.empty()) continue;
      result = {.worst = error, .name = slice.spec.name};
      if (std::isnan(error))
        return {.worst = std::numeric_limits<double>::infinity(), .name = slice.spec.name};
    }
  }
  return result;
}

}  // namespace tptrain::testing
