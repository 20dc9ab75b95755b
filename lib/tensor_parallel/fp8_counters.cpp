#include "tensor_parallel/fp8_counters.h"

#include <ATen/ATen.h>

namespace tptrain::tensor_parallel {

Fp8Counters::Fp8Counters(at::Device device)
    : counts_(at::zeros({3}, at::TensorOptions().dtype(at::kLong).device(device))) {}

void Fp8Counters::cast(const parameters::Parameter&, Of, const at::Tensor& values,
                       const kernels::Fp8Matrix& cast) {
  const at::Tensor stored = cast.rows.defined()
                                ? cast.rows.to(at::kFloat)
                                : cast.columns.narrow(1, 0, values.size(0)).to(at::kFloat).t();
  const bool e5m2 =
      (cast.rows.defined() ? cast.rows : cast.columns).scalar_type() == at::kFloat8_e5m2;
  const double largest = e5m2 ? 57344.0 : 448.0;
  counts_[0].add_(values.numel());
  counts_[1].add_(stored.eq(0).logical_and_(values.ne(0)).sum());
  counts_[2].add_(values.to(at::kFloat).abs_().gt(cast.scale * largest).sum());
}

Fp8Counters::Counts Fp8Counters::read() const {
  const at::Tensor counts = counts_.cpu();
  const auto* words = counts.const_data_ptr<int64_t>();
  return {.elements = words[0], .flushed = words[1], .saturated = words[2]};
}

}  // namespace tptrain::tensor_parallel
