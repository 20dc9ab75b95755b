// The decoder once more, on one rank, in plain ATen with autograd leaves: what every layout is
// compared with. Shares no code with lib/ but the names of tensors and the initial values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "parameters/parameter.h"

namespace tptrain::testing {

/// Global tensors by Hugging Face name.
using Tensors = std::map<std::string, at::Tensor>;

struct ReferenceResult {
  at::Tensor loss;               // scalar: cross entropy
  at::Tensor squared_logsumexp;  // scalar
  Tensors gradients;             // of loss + z_loss * squared_logsumexp, by name, of every weight
};

/// Losses and gradients at `weights` (fp32, or fp64 for a reference without rounding). ids, targets
/// [S, B] int64, target -100 is ignored; the losses are sums over targets times
/// inverse_target_tokens.
ReferenceResult reference_step(const model::DecoderConfig& config, const Tensors& weights,
                               const at::Tensor& ids, const at::Tensor& targets,
                               double inverse_target_tokens, double z_loss = 0.0);

/// Logits of every position: [S, B, V].
at::Tensor reference_logits(const model::DecoderConfig& config, const Tensors& weights,
                            const at::Tensor& ids);

/// The values training begins with at `seed`, fp32, whole.
Tensors initial_weights(const model::DecoderConfig& config, uint64_t seed);

/// initial_weights plus noise on every tensor, so that norms are not all one and biases not all
/// zero.
Tensors noisy_weights(const model::DecoderConfig& config, uint64_t seed);

/// Standard normal values, the same on every rank: of sharding's generator, not ATen's, whose state
/// a test would share.
at::Tensor normal_values(const std::string& name, const std::vector<int64_t>& shape);
/// Ids [length, batch] int64 below vocab_size, the same on every rank.
at::Tensor token_ids(const std::string& name, int64_t length, int64_t batch, int64_t vocab_size);

/// A copy of the slice `spec` of its global tensor.
at::Tensor slice_of_global(const at::Tensor& global, const sharding::ShardSpec& spec);

/// Gives each parameter its own memory: data cut out of `weights`, main_grad zero. In place of
/// buckets.
void bind_parameters(const std::vector<parameters::Parameter*>& parameters, const Tensors& weights);

/// What zero::ParamBuckets does to gradients over tp, done here without it: sums the partial ones
/// of replicated parameters, and those of the ranks that hold copies of one slice. Collective over
/// tp.
void sum_gradients_over_tp(const std::vector<parameters::Parameter*>& parameters,
                           comm::Communicator& tp);

/// main_grad of one rank that holds everything, as global tensors.
Tensors global_gradients(const std::vector<parameters::Parameter*>& parameters);

/// max |actual - expected| / max |expected|; infinite where the shapes differ or a value is NaN.
double relative_error(const at::Tensor& actual, const at::Tensor& expected);

/// The same for each slice's part of main_grad against the global gradients; the worst slice
/// counts.
struct GradientError {
  double worst = 0.0;
  std::string name;  // of the worst slice
};
GradientError gradient_error(const std::vector<parameters::Parameter*>& parameters,
                             const Tensors& gradients);

}  // namespace tptrain::testing
