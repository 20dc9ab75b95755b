#include "model/positions.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

namespace {

// Short waves as they are, those longer than the context of the first training stretched by
// `factor`, and between the two a mixture.
double llama3_frequency(double frequency, const RotaryScaling& scaling) {
  const auto context = static_cast<double>(scaling.original_max_position_embeddings);
  const double waves = context * frequency / (2.0 * std::numbers::pi);  // within that context
  if (waves > scaling.high_freq_factor) return frequency;
  if (waves < scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth =
      (waves - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

std::vector<double> rotary_frequencies(const DecoderConfig& config) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < config.head_dim / 2; ++i) {
    const double plain = std::pow(
        config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    const RotaryScaling& scaling = config.rope_scaling;
    switch (scaling.kind) {
      case RotaryScaling::Kind::none:
        frequencies.push_back(plain);
        break;
      case RotaryScaling::Kind::linear:
        frequencies.push_back(plain / scaling.factor);
        break;
      case RotaryScaling::Kind::llama3:
        frequencies.push_back(llama3_frequency(plain, scaling));
        break;
    }
  }
  return frequencies;
}

LearnedPositions::LearnedPositions(const DecoderConfig& config, const Options& options,
                                   const comm::Communicator& tp) {
  tensor_parallel::declare_replicated(
      table_, options.name + ".weight", {config.max_position_embeddings, config.hidden_size},
      {.kind = sharding::Init::Kind::normal, .std = config.initializer_range}, options.gradient,
      tp);
}

void LearnedPositions::add(at::Tensor& x, int64_t first_position, int64_t held) const {
  if (first_position + held > table_.shape[0]) {
    throw InternalError(problem(cat("positions ", first_position, " to ", first_position + held,
                                    " of a table of ", table_.shape[0]))
                            .must("lie within it")
                            .remedy("check_seq_length tells so before a model is built."));
  }
  x.narrow(0, 0, held).add_(table_.data.narrow(0, first_position, held).unsqueeze(1));
}

void LearnedPositions::add_at(at::Tensor& x, int64_t first_row, int64_t held,
                              const at::Tensor& of_rows) const {
  if (held == 0) return;
  const at::Tensor found = kernels::embedding_rows(table_.data, of_rows.narrow(0, first_row, held),
                                                   {.begin = 0, .vocab = table_.shape[0]});
  x.narrow(0, 0, held).add_(found.unsqueeze(1));
}

void LearnedPositions::backward_at(const at::Tensor& grad, int64_t first_row, int64_t held,
                                   const at::Tensor& of_rows) {
  if (held == 0 || !table_.trains) return;
  kernels::accumulate_embedding_gradient(table_.main_grad, grad.narrow(0, 0, held).squeeze(1),
                                         of_rows.narrow(0, first_row, held),
                                         {.begin = 0, .vocab = table_.shape[0]});
}

void LearnedPositions::backward(const at::Tensor& grad, int64_t first_position, int64_t held) {
  if (!table_.trains) return;
  table_.main_grad.narrow(0, first_position, held)
      .add_(at::sum(grad.narrow(0, 0, held), {1}, /*keepdim=*/false, at::kFloat));
}

int64_t held_rows(const tensor_parallel::SequenceRegion& region) {
  return std::clamp<int64_t>(region.length() - region.first_position(), 0, region.rows());
}

}  // namespace tptrain::model
