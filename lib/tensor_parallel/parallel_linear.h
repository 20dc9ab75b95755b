// Linears cut over the tp axis: by output features (column) or by input features (row). Each is
// this rank's share of the work, forward and backward side by side; the communication around it is
// sequence_region.h's.
//
//   layer                  weight (local)   input whole    output      before / after it
//   ColumnParallelLinear   [out/tp, in]     [S, B, in]     sharded     gather / backward: reduce
//   RowParallelLinear      [out, in/tp]     sharded        partial     reduce / backward: gather
//
// Weights are sharding::Parameters: backward reads `data` of that moment and adds to main_grad.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "sharding/parameter.h"
#include "tensor_parallel/partition.h"

namespace tptrain::tensor_parallel {

enum class Bias { none, learned };

/// y = x W^T (+ bias). x [.., in], W [out, in] -> [.., out], a fresh tensor. `bias` may be null.
at::Tensor linear(const at::Tensor& x, const sharding::Parameter& weight,
                  const sharding::Parameter* bias);
/// dx = dy W, [.., out] -> [.., in], a fresh tensor.
at::Tensor linear_input_gradient(const at::Tensor& grad_output, const sharding::Parameter& weight);
/// Adds dy^T x to weight.main_grad in fp32, and the sum of dy over its rows to the bias's.
void linear_weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                            sharding::Parameter& weight, sharding::Parameter* bias);

/// Several linears of one input, cut by output features, held as one weight and run as one GEMM:
/// q, k, v or gate, up.
class ColumnParallelLinear {
 public:
  struct Output {
    std::string name;      // "model.layers.0.self_attn.q_proj"; the tensors add ".weight", ".bias"
    int64_t features = 0;  // over all tp ranks
    Range local = {};      // this rank's
    bool owned = true;
    sharding::TpCopies copies = {};
  };
  struct Options {
    std::string name;  // of the packed parameter in messages: "model.layers.0.self_attn.qkv_proj"
    std::vector<Output> outputs;
    int64_t in_features = 0;
    Bias bias = Bias::none;
    double init_std = 0.0;
  };
  explicit ColumnParallelLinear(const Options& options);

  /// x [.., in] whole -> [.., sum of local features]: this rank's rows of each output, one output
  /// after the other.
  at::Tensor forward(const at::Tensor& x) const { return linear(x, weight_, bias_.get()); }
  /// The partial gradient of x, to be summed over tp; adds those of weight and bias.
  at::Tensor backward(const at::Tensor& grad_output, const at::Tensor& x);

  /// Weight, then bias.
  std::vector<sharding::Parameter*> parameters();

 private:
  sharding::Parameter weight_;
  std::unique_ptr<sharding::Parameter> bias_;  // [sum of local features]
};

/// A linear cut by input features: each rank multiplies its slice, the sum over tp is the output.
/// The bias is whole on every rank and belongs to the sum: added before it, it would count tp
/// times.
class RowParallelLinear {
 public:
  struct Options {
    std::string name;  // "model.layers.0.self_attn.o_proj"
    int64_t in_features = 0;
    int64_t out_features = 0;
    Range local = {};  // of the input features
    Bias bias = Bias::none;
    double init_std = 0.0;
    sharding::TpGradient bias_gradient = sharding::TpGradient::whole;  // partial on sequence slices
  };
  RowParallelLinear(const Options& options, const comm::Communicator& tp);

  /// x [.., local in] -> the partial [.., out], to be summed over tp.
  at::Tensor forward(const at::Tensor& x) const { return linear(x, weight_, nullptr); }
  /// Adds the bias, if there is one, to the sum or a slice of it, in place.
  void add_bias(at::Tensor& sum) const;

  /// grad_output [.., out] of the whole sequence -> gradient of x; adds that of the weight.
  at::Tensor backward(const at::Tensor& grad_output, const at::Tensor& x);
  /// Adds the bias's gradient from that of what add_bias was given.
  void bias_backward(const at::Tensor& grad_sum);

  /// Weight, then bias.
  std::vector<sharding::Parameter*> parameters();

 private:
  sharding::Parameter weight_;
  std::unique_ptr<sharding::Parameter> bias_;  // [out]
};

/// Describes the whole of a tensor that every tp rank holds: tp rank 0 owns it.
void declare_replicated(sharding::Parameter& parameter, std::string name,
                        std::vector<int64_t> shape, sharding::Init init,
                        sharding::TpGradient gradient, const comm::Communicator& tp);

}  // namespace tptrain::tensor_parallel
