// The feed-forward sublayer: SwiGLU, down(silu(gate(x)) * up(x)), gate and up packed into one GEMM;
// or GELU, down(gelu(up(x))).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Mlp {
 public:
  /// `name` is the sublayer's: "model.layers.0.mlp". `replicated_gradient`: what a replicated
  /// parameter behind the region gets (partial on sequence slices).
  Mlp(const DecoderConfig& config, const std::string& name,
      sharding::TpGradient replicated_gradient, const comm::Communicator& tp);

  /// x [S, B, H] -> [S, B, 2 F/tp] of SwiGLU, [S, B, F/tp] of GELU.
  at::Tensor up(tensor_parallel::GatheredSequence& x) const { return up_proj_.forward(x); }
  /// silu(gate) * up or gelu(up), [S, B, F/tp].
  at::Tensor activation(const at::Tensor& up) const;
  /// activation -> the output [rows, B, H], its sum over tp begun.
  tensor_parallel::ReducedSequence down(const at::Tensor& activation,
                                        const tensor_parallel::SequenceRegion& region) const {
    return down_proj_.forward(activation, region);
  }

  void bias_backward(const at::Tensor& grad_sum) { down_proj_.bias_backward(grad_sum); }
  /// Gradient of down()'s output -> gradient of up()'s.
  at::Tensor down_input_gradient(tensor_parallel::GatheredSequence& grad_output,
                                 const at::Tensor& up) const;
  void down_weight_gradient(const at::Tensor& grad_output, const at::Tensor& activation) {
    down_proj_.weight_gradient(grad_output, activation);
  }
  /// -> the gradient of x, its sum over tp begun.
  tensor_parallel::ReducedSequence up_input_gradient(
      const at::Tensor& grad_up, const tensor_parallel::SequenceRegion& region) const {
    return up_proj_.input_gradient(grad_up, region);
  }
  void up_weight_gradient(const at::Tensor& grad_up, const at::Tensor& x) {
    up_proj_.weight_gradient(grad_up, x);
  }

  /// In order of use.
  std::vector<sharding::Parameter*> parameters();

 private:
  FeedForward form_;
  tensor_parallel::ColumnParallelLinear up_proj_;  // SwiGLU: gate, then up
  tensor_parallel::RowParallelLinear down_proj_;
};

}  // namespace tptrain::model
