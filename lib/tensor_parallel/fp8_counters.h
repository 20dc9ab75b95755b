// How many elements FP8 casts have lost: to zero (too small beside the largest of their tensor), or
// to the type's largest number. Costs a few passes over everything that is cast: for a look at a
// run, not for every one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "tensor_parallel/fp8_observer.h"

namespace tptrain::tensor_parallel {

class Fp8Counters final : public Fp8Observer {
 public:
  explicit Fp8Counters(at::Device device);

  void cast(const parameters::Parameter& weight, Of of, const at::Tensor& values,
            const kernels::Fp8Matrix& cast) override;

  struct Counts {
    int64_t elements = 0;
    int64_t flushed = 0;    // of them, which were not zero and are now
    int64_t saturated = 0;  // which were beyond the type's largest number at their scale
  };
  /// Of all casts so far; waits for the device.
  Counts read() const;

 private:
  at::Tensor counts_;  // int64 [3], as Counts
};

}  // namespace tptrain::tensor_parallel
