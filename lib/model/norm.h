// The norms with the residual addition before them, as one layer: RMSNorm with a weight, or
// LayerNorm with a weight and a bias, which are whole on every tp rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "parameters/parameter.h"

namespace tptrain::model {

/// What flows from layer to layer: the residual stream and the last sublayer's output that is not
/// yet added to it. The next norm adds it, in one pass with its own work. In backward one tensor
/// flows: the gradient of their sum is that of each.
struct ResidualStream {
  at::Tensor residual;  // [rows, B, H]
  at::Tensor delta;     // [rows, B, H]; undefined after the embedding
};

/// The gradient of such a sum.
struct ResidualGradient {
  at::Tensor rows;         // [rows, B, H]
  at::Tensor column_sums;  // [H] fp32, over the rows, where what made them has summed; undefined
};

class NormLayer {
 public:
  struct Options {
    std::string name;  // "model.norm"; the tensors add ".weight" and ".bias"
    /// partial where the norm works on a slice of the sequence
    parameters::TpGradient gradient = parameters::TpGradient::whole;
  };
  NormLayer(const DecoderConfig& config, const Options& options, const comm::Communicator& tp);

  struct Result {
    at::Tensor sum;         // [rows, B, H] residual + delta: the residual stream from here on
    at::Tensor output;      // [rows, B, H] the norm of it
    at::Tensor statistics;  // fp32: [rows * B], of LayerNorm [2, rows * B]
  };
  Result forward(const ResidualStream& stream) const;
  /// Result::output anew, bitwise the same.
  at::Tensor recompute(const at::Tensor& sum, const at::Tensor& statistics) const;

  /// The gradient of the sum, from that of the output and, where the sum has gone on as the
  /// residual stream, its own (`grad_sum`, may be undefined). Adds the parameters'.
  ResidualGradient backward(const at::Tensor& grad_output, const at::Tensor& grad_sum,
                            const at::Tensor& sum, const at::Tensor& statistics);

  /// Weight, then bias.
  std::vector<parameters::Parameter*> parameters();

 private:
  double eps_;
  parameters::Parameter weight_;                 // [H]
  std::unique_ptr<parameters::Parameter> bias_;  // [H]; null: RMSNorm
};

}  // namespace tptrain::model
