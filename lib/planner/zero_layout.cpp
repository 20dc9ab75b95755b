#include "planner/zero_layout.h"

#include "optim/update_rule.h"
#include "planner/plan.h"

namespace tptrain::planner {
namespace {

config::Dtype dtype_key(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? config::Dtype::bf16 : config::Dtype::fp32;
}

}  // namespace

ZeroLayout zero_layout(const Layout& layout, int zero_stage) {
  // Where every rank receives the sums of all micro-batches they are fp32.
  const at::ScalarType gradient_dtype =
      zero_stage == 0 && layout.reduce_per_micro_batch ? at::kFloat : layout.gradient_dtype;
  ZeroLayout result{
      .buckets = {.device = layout.device == Device::cuda ? at::kCUDA : at::kCPU,
                  .dtype = layout.dtype,
                  .zero_stage = zero_stage,
                  .gradient_dtype = gradient_dtype,
                  .rule = &optim::update_rule(layout.update_rule),
                  .fp8_matrices = layout.training.fp8.over_dp(layout.dp_size)
                                      ? zero::Fp8Matrices::apart
                                      : zero::Fp8Matrices::with_others},
      .zero = {.zero_stage = zero_stage,
               .reduce_per_micro_batch = layout.reduce_per_micro_batch,
               .reduce_dtype = layout.reduce_dtype,
               // As train::zero_options() decides.
               .frozen_values = layout.training.adapter ? zero::FrozenValues::elsewhere
                                                        : zero::FrozenValues::in_state},
      .state = {}};
  result.zero.optimizer.type = layout.update_rule;
  result.zero.optimizer.master_dtype = dtype_key(layout.master_dtype);
  result.zero.optimizer.moments_dtype = dtype_key(layout.moments_dtype);
  result.state = zero::state_layout(result.buckets, result.zero, static_cast<int>(layout.dp_size));
  return result;
}

}  // namespace tptrain::planner
