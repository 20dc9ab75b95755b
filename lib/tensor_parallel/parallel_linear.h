// Linears cut over the tp axis: by output features (column) or by input features (row). Each is
// this rank's share of the work, forward and backward side by side; the communication around it is
// sequence_region.h's. The forms that take what is being gathered, or give what is being reduced,
// do the same products in the order in which pieces come and may go.
//
//   layer                  weight (local)   input whole    output      before / after it
//   ColumnParallelLinear   [out/tp, in]     [S, B, in]     sharded     gather / backward: reduce
//   RowParallelLinear      [out, in/tp]     sharded        partial     reduce / backward: gather
//
// Weights are sharding::Parameters: backward reads `data` of that moment and adds to main_grad.
// With Options::fp8 the products are those of fp8_linear.h, where the sizes of the weight allow it.
// Generation (forward of a plain tensor) is always in the compute dtype. With adapters
// (low_rank_adapter.h) their terms stand in the output, and in the gradient of the input, before
// any sum over tp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "kernels/kernels.h"
#include "parameters/parameter.h"
#include "tensor_parallel/fp8_linear.h"
#include "tensor_parallel/linear_state.h"
#include "tensor_parallel/low_rank_adapter.h"
#include "tensor_parallel/partition.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::tensor_parallel {

enum class Bias { none, learned };

/// y = x W^T (+ bias). x [.., in], W [out, in] -> [.., out], a fresh tensor. `bias` may be null.
at::Tensor linear(const at::Tensor& x, const parameters::Parameter& weight,
                  const parameters::Parameter* bias);
at::Tensor linear(GatheredSequence& x, const parameters::Parameter& weight,
                  const parameters::Parameter* bias);
/// The sum over tp of x W^T (+ bias), begun: x [S, B, in] -> [rows, B, out]. Collective over tp.
ReducedSequence linear_reduced(const at::Tensor& x, const parameters::Parameter& weight,
                               const parameters::Parameter* bias, const SequenceRegion& region);
/// dx = dy W, [.., out] -> [.., in], a fresh tensor.
at::Tensor linear_input_gradient(GatheredSequence& grad_output,
                                 const parameters::Parameter& weight);
/// The sum over tp of dy W, begun: dy [S, B, out] -> [rows, B, in]. Collective over tp.
ReducedSequence linear_input_gradient_reduced(const at::Tensor& grad_output,
                                              const parameters::Parameter& weight,
                                              const SequenceRegion& region);
/// How the next product enters weight.main_grad, of which it writes the whole: over it where that
/// is its owner's first write, which the owner is told of. The squares of what was there are no
/// longer those of what is.
kernels::Accumulate accumulation_of(parameters::Parameter& weight);
/// dy^T x into `main_grad`, that of the weight with all its rows, with its squares where they are
/// asked for: dy [T, out], x [T, in].
void multiply_weight_gradient(parameters::Parameter& weight, at::Tensor& main_grad,
                              const at::Tensor& grad_output, const at::Tensor& x);
/// Adds dy^T x to weight.main_grad in fp32, and the sum of dy over its rows to the bias's; nothing
/// where they do not train.
void linear_weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                            parameters::Parameter& weight, parameters::Parameter* bias);

/// main_grad of a vector; where it does not train, memory that nobody reads: a norm's backward
/// makes its weight's gradient in the same pass as its input's.
at::Tensor gradient_or_scratch(parameters::Parameter& parameter);

/// Several linears of one input, cut by output features, held as one weight and run as one GEMM:
/// q, k, v or gate, up.
class ColumnParallelLinear {
 public:
  struct Output {
    std::string name;      // "model.layers.0.self_attn.q_proj"; the tensors add ".weight", ".bias"
    int64_t features = 0;  // over all tp ranks
    Range local = {};      // this rank's
    bool owned = true;
    parameters::TpCopies copies = {};
    /// LowRankAdapter::Site::name, which neighbours may share; "": no adapter.
    std::string adapter = {};
  };
  struct Options {
    std::string name;  // of the packed parameter in messages: "model.layers.0.self_attn.qkv_proj"
    std::vector<Output> outputs;
    int64_t in_features = 0;
    Bias bias = Bias::none;
    double init_std = 0.0;
    const Fp8Settings* fp8 = nullptr;  // null: no FP8
    LowRank low_rank = {};             // of the outputs' adapters; not with FP8
  };
  ColumnParallelLinear(const Options& options, const comm::Communicator& tp);

  /// x [S, B, in] whole -> [S, B, sum of local features]: this rank's rows of each output, one
  /// output after the other.
  at::Tensor forward(const at::Tensor& x) const;
  /// Begins to gather what forward() will read, in the form in which it multiplies; `before`: of
  /// the forward of the same values, where this is for backward, else null. Collective over tp
  /// where sliced.
  GatheredSequence start_gather(at::Tensor slice, const SequenceRegion& region,
                                const LinearInput* before) const {
    if (!fp8_) return region.start_gather(std::move(slice));
    return fp8_->start_gather(std::move(slice), region,
                              before != nullptr ? before->cast.scale : at::Tensor());
  }
  /// `input`: for backward, may be null.
  at::Tensor forward(GatheredSequence& x, LinearInput* input) const;
  /// Whether a product can give its GELU in passing: not in FP8, not with an adapter behind it.
  bool fuses_gelu() const { return !fp8_ && !adapter_; }
  /// The same and its GELU, where it fuses.
  struct WithActivation {
    at::Tensor output, activation;
  };
  WithActivation forward_gelu(GatheredSequence& x) const;
  /// Whether a product can give its SwiGLU in passing: on CUDA, where it fuses GELU and has no
  /// bias.
  bool fuses_swiglu() const { return fuses_gelu() && !bias_ && weight_.data.is_cuda(); }
  /// The same of SwiGLU, whose gates are the first half of the output.
  WithActivation forward_swiglu(GatheredSequence& x) const;
  /// Backward in two halves: the gradient of x, its sum over tp begun; and those of weight, bias
  /// and adapters. `input` is forward's, `grad` the first half's for the second; x is not read
  /// where `input` has columns. But for FP8 the second may come without the first, with a `grad`
  /// that is empty.
  ReducedSequence input_gradient(const at::Tensor& grad_output, const SequenceRegion& region,
                                 const LinearInput& input, LinearGradient& grad) const;
  void weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                       const LinearGradient& grad, const LinearInput& input);
  /// For what makes grad_output: LinearGradient::bias_added then says whether it has.
  kernels::ColumnTotals bias_totals() const {
    return {.totals = bias_ && bias_->trains ? bias_->main_grad : at::Tensor()};
  }

  bool runs_in_fp8() const { return fp8_ != nullptr; }
  Fp8Linear* fp8() const { return fp8_.get(); }
  const std::string& name() const { return weight_.name; }
  /// Weight, then bias, then the adapters'.
  std::vector<parameters::Parameter*> parameters();

 private:
  parameters::Parameter weight_;
  std::unique_ptr<parameters::Parameter> bias_;  // [sum of local features]
  std::unique_ptr<Fp8Linear> fp8_;               // null: in the compute dtype
  std::unique_ptr<LowRankAdapter> adapter_;      // null: none
};

/// A linear cut by input features: each rank multiplies its slice, the sum over tp is the output.
/// The bias is whole on every rank and belongs to the sum: tp rank 0 alone adds it to its terms, in
/// the product itself.
class RowParallelLinear {
 public:
  struct Options {
    std::string name;  // "model.layers.0.self_attn.o_proj"
    int64_t in_features = 0;
    int64_t out_features = 0;
    Range local = {};  // of the input features
    Bias bias = Bias::none;
    double init_std = 0.0;
    parameters::TpGradient bias_gradient =
        parameters::TpGradient::whole;  // partial on sequence slices
    const Fp8Settings* fp8 = nullptr;   // null: no FP8
    std::string adapter = {};           // as ColumnParallelLinear::Output's
    LowRank low_rank = {};              // of the adapter; not with FP8
  };
  RowParallelLinear(const Options& options, const comm::Communicator& tp);

  /// x [S, B, local in] -> the partial [S, B, out], to be summed over tp.
  at::Tensor forward(const at::Tensor& x) const;
  /// The sum over tp, begun. `input`: for backward, may be null.
  ReducedSequence forward(const at::Tensor& x, const SequenceRegion& region,
                          LinearInput* input) const;

  /// As ColumnParallelLinear's.
  bool fuses_gelu() const { return !fp8_ && !adapter_; }
  /// Begins to gather what input_gradient() will read, in the form in which it multiplies.
  /// Collective over tp where sliced.
  GatheredSequence start_gather(at::Tensor grad_slice, const SequenceRegion& region) const {
    if (!fp8_) return region.start_gather(std::move(grad_slice));
    return fp8_->start_gather(std::move(grad_slice), region);
  }
  /// Backward in two halves: the gradient of x; and those of weight and adapter. `input` is
  /// forward's, `grad` the first half's for the second; x is not read where `input` has columns.
  at::Tensor input_gradient(GatheredSequence& grad_output, const LinearInput& input,
                            LinearGradient& grad) const;
  /// The gradient of `pre` [S, B, local in], where x is gelu(pre) and it fuses.
  at::Tensor input_gradient_gelu(GatheredSequence& grad_output, const at::Tensor& pre) const;
  bool fuses_swiglu() const { return fuses_gelu() && weight_.data.is_cuda(); }
  /// The gradient of `pre` [S, B, 2 * local in], where x is swiglu(pre) and it fuses.
  at::Tensor input_gradient_swiglu(GatheredSequence& grad_output, const at::Tensor& pre) const;
  void weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                       const LinearGradient& grad, const LinearInput& input);
  /// Adds the bias's gradient from that of the sum, or of this rank's slice of it; column_sums:
  /// over its rows, where they are known (else undefined).
  void bias_backward(const at::Tensor& grad_sum, const at::Tensor& column_sums = {});

  bool runs_in_fp8() const { return fp8_ != nullptr; }
  Fp8Linear* fp8() const { return fp8_.get(); }
  const std::string& name() const { return weight_.name; }
  /// Weight, then bias, then the adapter's.
  std::vector<parameters::Parameter*> parameters();

 private:
  const parameters::Parameter* added_bias() const { return adds_bias_ ? bias_.get() : nullptr; }

  parameters::Parameter weight_;
  std::unique_ptr<parameters::Parameter> bias_;  // [out]
  std::unique_ptr<Fp8Linear> fp8_;               // null: in the compute dtype
  std::unique_ptr<LowRankAdapter> adapter_;      // null: none
  bool adds_bias_;
};

/// Describes the whole of a tensor that every tp rank holds: tp rank 0 owns it.
void declare_replicated(parameters::Parameter& parameter, std::string name,
                        std::vector<int64_t> shape, sharding::Init init,
                        parameters::TpGradient gradient, const comm::Communicator& tp);

}  // namespace tptrain::tensor_parallel
