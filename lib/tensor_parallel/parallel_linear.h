// Linears cut over the tp axis: by output features (column) or by input features (row).
//
//   layer                  weight (local)   input       output      tp communication
//   ColumnParallelLinear   [out/tp, in]     whole       sharded     backward: all_reduce of dX
//   RowParallelLinear      [out, in/tp]     sharded     whole       forward: all_reduce of Y
//
// Weights are sharding::Parameters, not autograd leaves: a gradient flows into main_grad only where
// the input itself requires a gradient. Weight gradients are added in fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "sharding/parameter.h"

namespace tptrain::tensor_parallel {

enum class Bias { none, learned };

/// y = x W^T (+ bias) on this rank alone, without communication. x [.., in], W [out, in] ->
/// [.., out]. Backward reads W's data of that moment, adds to main_grad and returns dX, a fresh
/// tensor. `weight` and `bias` (may be null) must outlive the graph.
at::Tensor local_linear(const at::Tensor& input, sharding::Parameter& weight,
                        sharding::Parameter* bias);

/// Several linears of one input, cut by output features, held as one weight and run as one GEMM:
/// q, k, v or gate, up. One gradient of the input, one all-reduce for all of them.
class ColumnParallelLinear {
 public:
  struct Output {
    std::string name;      // "model.layers.0.self_attn.q_proj"; the tensors add ".weight", ".bias"
    int64_t features = 0;  // over all tp ranks
  };
  struct Options {
    std::string name;  // of the packed parameter in messages: "model.layers.0.self_attn.qkv_proj"
    std::vector<Output> outputs;
    int64_t in_features = 0;
    Bias bias = Bias::none;
    double init_std = 0.0;
  };

  /// Throws InternalError where an output's features do not divide by tp.size(). `tp` must outlive
  /// it.
  ColumnParallelLinear(const Options& options, comm::Communicator& tp);

  /// x [.., in], the same on all tp ranks -> [.., sum of features / tp]: this rank's rows of each
  /// output, one output after the other. Backward is collective over tp.
  at::Tensor forward(const at::Tensor& x);

  /// Weight, then bias.
  std::vector<sharding::Parameter*> parameters();

 private:
  comm::Communicator& tp_;
  sharding::Parameter weight_;
  std::unique_ptr<sharding::Parameter> bias_;  // [sum of features / tp]
};

/// A linear cut by input features: each rank multiplies its slice, the sum over tp is the output.
/// A bias is whole on every rank and added after the sum; its gradient in main_grad is whole, and
/// the same, on every rank.
class RowParallelLinear {
 public:
  struct Options {
    std::string name;  // "model.layers.0.self_attn.o_proj"
    int64_t in_features = 0;
    int64_t out_features = 0;
    Bias bias = Bias::none;
    double init_std = 0.0;
  };

  /// Throws InternalError where in_features does not divide by tp.size(). `tp` must outlive it.
  RowParallelLinear(const Options& options, comm::Communicator& tp);

  /// x [.., in/tp] -> [.., out], the same on all tp ranks. Collective over tp.
  at::Tensor forward(const at::Tensor& x);

  /// Weight, then bias.
  std::vector<sharding::Parameter*> parameters();

 private:
  comm::Communicator& tp_;
  sharding::Parameter weight_;
  std::unique_ptr<sharding::Parameter> bias_;  // [out]
};

/// Describes the whole of a tensor that every tp rank holds: tp rank 0 owns it.
void declare_replicated(sharding::Parameter& parameter, std::string name,
                        std::vector<int64_t> shape, sharding::Init init,
                        const comm::Communicator& tp);

/// The part [begin, end) of `features` that tp rank `tp.rank()` holds; throws InternalError naming
/// `what` where they do not divide.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};
Range even_range(int64_t features, const comm::Communicator& tp, const std::string& what);

}  // namespace tptrain::tensor_parallel
