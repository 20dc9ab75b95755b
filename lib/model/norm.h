// RMSNorm with the residual addition before it, as one layer: the weight is whole on every tp rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "comm/communicator.h"
#include "sharding/parameter.h"

namespace tptrain::model {

/// What flows from layer to layer: the residual stream and the last sublayer's output that is not
/// yet added to it. The next norm adds it, in one pass with its own work. In backward one tensor
/// flows: the gradient of their sum is that of each.
struct ResidualStream {
  at::Tensor residual;  // [rows, B, H]
  at::Tensor delta;     // [rows, B, H]; undefined after the embedding
};

class RmsNorm {
 public:
  struct Options {
    std::string name;  // "model.norm"; the tensor adds ".weight"
    int64_t hidden_size = 0;
    double eps = 1e-6;
    /// partial where the norm works on a slice of the sequence
    sharding::TpGradient gradient = sharding::TpGradient::whole;
  };
  RmsNorm(const Options& options, const comm::Communicator& tp);

  struct Result {
    at::Tensor sum;          // [rows, B, H] residual + delta: the residual stream from here on
    at::Tensor output;       // [rows, B, H] the norm of it
    at::Tensor inverse_rms;  // [rows * B] fp32
  };
  Result forward(const ResidualStream& stream) const;
  /// Result::output anew, bitwise the same.
  at::Tensor again(const at::Tensor& sum, const at::Tensor& inverse_rms) const;

  /// The gradient of the sum, from that of the output and, where the sum has gone on as the
  /// residual stream, its own (`grad_sum`, may be undefined). Adds the weight's.
  at::Tensor backward(const at::Tensor& grad_output, const at::Tensor& grad_sum,
                      const at::Tensor& sum, const at::Tensor& inverse_rms);

  sharding::Parameter& weight() { return weight_; }

 private:
  double eps_;
  sharding::Parameter weight_;  // [H]
};

}  // namespace tptrain::model
