// The products of a linear in FP8: activations and weights as e4m3, gradients as e5m2, each cast
// with a scale of its own that is found in the very tensor (kernels/fp8.h). What comes out, and
// main_grad, are what they are without FP8.
//
//   product                       operands                           sums
//   y  = x W^T                    rows of x, rows of W               fast
//   dx = dy W                     rows of dy, columns of W           split
//   dW = dy^T x, into main_grad   columns of dy, columns of x        split
//
// Alone (Fp8Settings::tp is null) a rank finds the scale in the part that it holds, and what tp
// moves is in the compute dtype. With the others a tensor has the scale of its whole: the largest
// magnitudes of the parts meet in an all-reduce (max) of a word before the cast, and what a slice
// of the sequence is gathered for is cast before, and travels in bytes.
//
//   tensor                   held by a rank        the largest magnitude over tp
//   input of a column cut    slice of sequence     before the gather; again for backward: known
//   input of a row cut       own features          before the cast
//   gradient of a row cut    slice of sequence     before the gather
//   gradient of a column cut own features          before the cast
//   weight                   own features          once for each version, a layer's four together
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "kernels/fp8.h"
#include "parameters/parameter.h"
#include "tensor_parallel/fp8_observer.h"
#include "tensor_parallel/linear_state.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::tensor_parallel {

/// What the FP8 linears of a model share. Must outlive them.
struct Fp8Settings {
  /// Casts of weights stay, 2 bytes an element, until weights_version changes: accumulated
  /// micro-batches share them. Else they are made at each use and let go of.
  bool keep_weights = true;
  int64_t weights_version = 0;  // another: values may be others
  Fp8Observer* observer = nullptr;
  /// Whose ranks share scales and gather bytes; null: each rank is alone.
  comm::Communicator* tp = nullptr;
};

/// How the weight is cut, and so what of a linear a rank holds whole.
enum class Fp8Cut { columns, rows };

class Fp8Linear {
 public:
  /// Sizes that FP8 products take.
  static bool takes(int64_t out, int64_t in);

  Fp8Linear(const Fp8Settings& settings, Fp8Cut cut, parameters::Parameter& weight);

  /// Begins to gather what forward() of a column cut, or input_gradient() of a row cut, will read:
  /// in bytes where ranks share scales. `scale`: of an earlier cast of the same values; undefined:
  /// found. Collective over tp where the region is sliced.
  GatheredSequence start_gather(at::Tensor slice, const SequenceRegion& region,
                                const at::Tensor& scale = {}) const;
  /// Finds what the casts of these weights need of the other tp ranks, where it is not known yet:
  /// before anything else reads a new version of them. Collective over tp where ranks share scales.
  static void share_weight_amax(const std::vector<Fp8Linear*>& linears);

  /// x [S, B, in] -> [S, B, out]. `bias` and `input` may be null.
  at::Tensor forward(GatheredSequence& x, const parameters::Parameter* bias, LinearInput* input);
  /// The same, and the sum over tp begun. Collective over tp.
  ReducedSequence forward_reduced(const at::Tensor& x, const parameters::Parameter* bias,
                                  const SequenceRegion& region, LinearInput* input);
  /// dy [S, B, out] -> dx [S, B, in]; finds the amax of dy in `grad`, if it is known, and leaves
  /// there what weight_gradient needs.
  at::Tensor input_gradient(GatheredSequence& grad_output, kernels::Fp8Matrix& grad);
  ReducedSequence input_gradient_reduced(const at::Tensor& grad_output,
                                         const SequenceRegion& region, kernels::Fp8Matrix& grad);
  /// `x` is read where `input` has no columns: as it was gathered.
  void weight_gradient(const kernels::Fp8Matrix& grad, const at::Tensor& x,
                       const LinearInput& input);

 private:
  /// What a slice of the sequence is gathered for.
  Fp8Observer::Of gathered() const;
  bool shares_scales() const { return settings_.tp != nullptr && settings_.tp->size() > 1; }
  at::Tensor largest_of_ranks(const at::Tensor& values, at::Tensor amax) const;
  kernels::Fp8Matrix cast(Fp8Observer::Of of, const at::Tensor& values, kernels::Fp8Form form,
                          const at::Tensor& scale = {}, const at::Tensor& amax = {}) const;
  kernels::Fp8Matrix cast_input(const at::Tensor& x, LinearInput* input) const;
  kernels::Fp8Matrix cast_weight(kernels::Fp8Form form) const;
  const at::Tensor& amax_of_weight() const { return shares_scales() ? weight_amax_ : weight_.amax; }
  kernels::Fp8Matrix weight_rows();
  kernels::Fp8Matrix weight_columns();
  const kernels::Fp8Matrix& kept_weight();

  const Fp8Settings& settings_;
  Fp8Cut cut_;
  parameters::Parameter& weight_;
  kernels::Fp8Matrix kept_weight_;
  std::optional<int64_t> kept_version_;
  // Where ranks share scales: the largest magnitude of all parts, in memory that stays.
  at::Tensor weight_amax_;
  std::optional<int64_t> amax_version_;
};

}  // namespace tptrain::tensor_parallel
