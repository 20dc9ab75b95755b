// RMSNorm with the residual addition before it, as one layer: the weight is whole on every tp rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "comm/communicator.h"
#include "model/block_boundary.h"
#include "sharding/parameter.h"

namespace tptrain::model {

class RmsNorm {
 public:
  struct Options {
    std::string name;  // "model.norm"; the tensor adds ".weight"
    int64_t hidden_size = 0;
    double eps = 1e-6;
  };
  RmsNorm(const Options& options, const comm::Communicator& tp);

  struct Result {
    at::Tensor sum;     // [S, B, H] residual + delta: the residual stream from here on
    at::Tensor output;  // [S, B, H] the norm of it
  };
  /// Every tp rank sees the whole stream, so the gradient in main_grad is whole, and the same, on
  /// every rank. In backward the gradients of both results meet in one pass.
  Result forward(const ResidualStream& stream);

  sharding::Parameter& weight() { return weight_; }

 private:
  double eps_;
  sharding::Parameter weight_;  // [H]
};

}  // namespace tptrain::model
