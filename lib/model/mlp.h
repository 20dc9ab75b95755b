// The feed-forward sublayer: SwiGLU, down(silu(gate(x)) * up(x)), gate and up packed into one GEMM;
// or GELU, down(gelu(up(x))).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder_config.h"
#include "model/linear_settings.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

class Mlp {
 public:
  /// `name` is the sublayer's: "model.layers.0.mlp".
  Mlp(const DecoderConfig& config, const std::string& name, const LinearSettings& linears,
      const comm::Communicator& tp);

  /// Begins to gather x for up(), or, with what it left in `before`, for its weights' gradients.
  tensor_parallel::GatheredSequence start_gather(
      at::Tensor slice, const tensor_parallel::SequenceRegion& region,
      const tensor_parallel::LinearInput* before = nullptr) const {
    return up_proj_.start_gather(std::move(slice), region, before);
  }
  /// Begins to gather the gradient of down()'s output.
  tensor_parallel::GatheredSequence start_gather_gradient(
      at::Tensor slice, const tensor_parallel::SequenceRegion& region) const {
    return down_proj_.start_gather(std::move(slice), region);
  }
  /// x [S, B, H] -> [S, B, 2 F/tp] of SwiGLU, [S, B, F/tp] of GELU.
  at::Tensor up(tensor_parallel::GatheredSequence& x, tensor_parallel::LinearInput* input) const {
    return up_proj_.forward(x, input);
  }
  /// up() and activation() of it, in one product where that is faster.
  struct Activated {
    at::Tensor up, activation;
  };
  /// `input` of up(); `down_input`, of down(), gets what is known of it on the way.
  Activated up_and_activation(tensor_parallel::GatheredSequence& x,
                              tensor_parallel::LinearInput* input,
                              tensor_parallel::LinearInput* down_input) const;
  /// silu(gate) * up or gelu(up), [S, B, F/tp].
  at::Tensor activation(const at::Tensor& up,
                        tensor_parallel::LinearInput* down_input = nullptr) const;
  /// activation -> the output [rows, B, H], its sum over tp begun.
  tensor_parallel::ReducedSequence down(const at::Tensor& activation,
                                        const tensor_parallel::SequenceRegion& region,
                                        tensor_parallel::LinearInput* input) const {
    return down_proj_.forward(activation, region, input);
  }

  void bias_backward(const at::Tensor& grad_sum, const at::Tensor& column_sums) {
    down_proj_.bias_backward(grad_sum, column_sums);
  }
  /// Gradient of down()'s output -> gradient of up()'s. `grad` here and below: what the weights'
  /// gradients need of the same gradient. `up_grad` is for up_input_gradient().
  at::Tensor down_input_gradient(tensor_parallel::GatheredSequence& grad_output,
                                 const at::Tensor& up, const tensor_parallel::LinearInput& input,
                                 tensor_parallel::LinearGradient& grad,
                                 tensor_parallel::LinearGradient& up_grad) const;
  void down_weight_gradient(const at::Tensor& grad_output, const at::Tensor& activation,
                            const tensor_parallel::LinearGradient& grad,
                            const tensor_parallel::LinearInput& input) {
    down_proj_.weight_gradient(grad_output, activation, grad, input);
  }
  /// -> the gradient of x, its sum over tp begun.
  tensor_parallel::ReducedSequence up_input_gradient(const at::Tensor& grad_up,
                                                     const tensor_parallel::SequenceRegion& region,
                                                     const tensor_parallel::LinearInput& input,
                                                     tensor_parallel::LinearGradient& grad) const {
    return up_proj_.input_gradient(grad_up, region, input, grad);
  }
  void up_weight_gradient(const at::Tensor& grad_up, const at::Tensor& x,
                          const tensor_parallel::LinearGradient& grad,
                          const tensor_parallel::LinearInput& input) {
    up_proj_.weight_gradient(grad_up, x, grad, input);
  }

  /// In order of use.
  std::vector<parameters::Parameter*> parameters();
  /// Adds the names of those that do not run in FP8.
  void add_linears_in_bf16(std::vector<std::string>& names) const;
  /// Adds those that do.
  void add_fp8(std::vector<tensor_parallel::Fp8Linear*>& linears) const;

 private:
  FeedForward form_;
  tensor_parallel::ColumnParallelLinear up_proj_;  // SwiGLU: gate, then up
  tensor_parallel::RowParallelLinear down_proj_;
};

}  // namespace tptrain::model
