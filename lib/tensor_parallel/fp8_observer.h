// Who watches what FP8 linears cast: counters of a run, captures of a test.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/fp8.h"
#include "parameters/parameter.h"

namespace tptrain::tensor_parallel {

class Fp8Observer {
 public:
  /// What of a linear is cast: its input, its weight, or its output's gradient.
  enum class Of { input, weight, gradient };

  virtual ~Fp8Observer() = default;
  /// `cast` is of `values` (bf16 [R, C]), as rows, columns or both. In the current stream, and so
  /// maybe in a capture: nothing here may wait for the device.
  virtual void cast(const parameters::Parameter& weight, Of of, const at::Tensor& values,
                    const kernels::Fp8Matrix& cast) = 0;
};

}  // namespace tptrain::tensor_parallel
