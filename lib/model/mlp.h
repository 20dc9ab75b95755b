// The SwiGLU feed-forward sublayer: down(silu(gate(x)) * up(x)), gate and up packed into one GEMM.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "kernels/kernels.h"
#include "model/decoder_config.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Mlp {
 public:
  /// `name` is the sublayer's: "model.layers.0.mlp".
  Mlp(const DecoderConfig& config, const std::string& name, const comm::Communicator& tp);

  /// x [S, B, H] whole -> [S, B, 2 F/tp].
  at::Tensor gate_up(const at::Tensor& x) const { return gate_up_proj_.forward(x); }
  /// silu(gate) * up, [S, B, F/tp].
  at::Tensor product(const at::Tensor& gate_up) const { return kernels::swiglu(gate_up); }
  /// product -> the partial output [S, B, H], to be summed over tp.
  at::Tensor down(const at::Tensor& product) const { return down_proj_.forward(product); }

  /// Gradient of down()'s output, whole -> gradient of gate_up.
  at::Tensor down_backward(const at::Tensor& grad_output, const at::Tensor& product,
                           const at::Tensor& gate_up) {
    return kernels::swiglu_backward(down_proj_.backward(grad_output, product), gate_up);
  }
  /// -> the partial gradient of x.
  at::Tensor gate_up_backward(const at::Tensor& grad_gate_up, const at::Tensor& x) {
    return gate_up_proj_.backward(grad_gate_up, x);
  }

  /// In order of use.
  std::vector<sharding::Parameter*> parameters();

 private:
  tensor_parallel::ColumnParallelLinear gate_up_proj_;
  tensor_parallel::RowParallelLinear down_proj_;
};

}  // namespace tptrain::model
