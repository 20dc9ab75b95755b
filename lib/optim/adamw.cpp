// AdamW: one vectorised pass on the CPU; on CUDA ATen's fused kernel, predicated on the device by
// its found_inf argument.
#include "optim/adamw.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cpu/parallel.h"
#include "optim/adamw_loop.h"

namespace tptrain::optim {

namespace {

constexpr int64_t kElementsPerThread = 32768;

/// Shards are cut in lib/: a range that does not fit is a mistake there, never a user's.
void check(const AdamWRange& range, size_t index) {
  for (const at::Tensor* tensor :
       {&range.master, &range.exp_avg, &range.exp_avg_sq, &range.gradient}) {
    if (tensor->scalar_type() == at::kFloat && tensor->is_contiguous() &&
        tensor->numel() == range.master.numel() && tensor->device() == range.master.device()) {
      continue;
    }
    throw InternalError(
        problem(cat("adamw_update: a tensor of range ", index, " is ", tensor->scalar_type(), " [",
                    join(tensor->sizes()), "] on ", tensor->device(), ", its master holds ",
                    range.master.numel(), " elements on ", range.master.device()))
            .must("be contiguous fp32 of the master's size, on its device"));
  }
}

AdamWConstants constants_of(const AdamWOptions& options, double learning_rate, double update,
                            float gradient_scale) {
  AdamWConstants constants;
  constants.decay = static_cast<float>(learning_rate * options.weight_decay);
  constants.beta2 = static_cast<float>(options.beta2);
  constants.one_minus_beta1 = static_cast<float>(1.0 - options.beta1);
  constants.one_minus_beta2 = static_cast<float>(1.0 - options.beta2);
  constants.step_size = static_cast<float>(learning_rate / (1.0 - std::pow(options.beta1, update)));
  constants.inverse_correction2 =
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, update)));
  constants.eps = static_cast<float>(options.eps);
  constants.gradient_scale = gradient_scale;
  return constants;
}

void update_on_cpu(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                   const at::Tensor& gradient_scale, const at::Tensor& finite,
                   double learning_rate) {
  if (!*finite.const_data_ptr<bool>()) return;
  float* count = updates.data_ptr<float>();
  *count += 1.0f;
  for (AdamWRange& range : ranges) {
    const AdamWConstants constants =
        constants_of(range.options, learning_rate, static_cast<double>(*count),
                     *gradient_scale.const_data_ptr<float>());
    const AdamWArrays arrays{range.master.data_ptr<float>(), range.exp_avg.data_ptr<float>(),
                             range.exp_avg_sq.data_ptr<float>(),
                             range.gradient.const_data_ptr<float>()};
    kernels::cpu::parallel_rows(
        range.master.numel(), kElementsPerThread,
        [&](int64_t begin, int64_t end) { adamw_elements(arrays, constants, begin, end); });
  }
}

void update_on_cuda(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                    const at::Tensor& gradient_scale, const at::Tensor& finite,
                    double learning_rate) {
  updates.add_(finite.to(at::kFloat).reshape(updates.sizes()));
  const at::Tensor found_inf = finite.logical_not()
                                   .to(at::kFloat)
                                   .reshape({});  // the kernel returns at once where this is 1
  const at::Tensor divisor =
      gradient_scale.reciprocal().reshape({});  // it divides by the scale of a loss scaler
  const at::Tensor step = updates.reshape({});
  for (AdamWRange& range : ranges) {
    const std::vector<at::Tensor> master = {range.master}, gradient = {range.gradient},
                                  exp_avg = {range.exp_avg}, exp_avg_sq = {range.exp_avg_sq},
                                  no_amsgrad = {}, steps = {step};
    at::_fused_adamw_(master, gradient, exp_avg, exp_avg_sq, no_amsgrad, steps, learning_rate,
                      range.options.beta1, range.options.beta2, range.options.weight_decay,
                      range.options.eps, /*amsgrad=*/false, /*maximize=*/false, divisor, found_inf);
  }
}

}  // namespace

void adamw_update(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                  const at::Tensor& gradient_scale, const at::Tensor& finite,
                  double learning_rate) {
  for (size_t i = 0; i < ranges.size(); ++i) check(ranges[i], i);
  if (updates.is_cpu()) {
    update_on_cpu(ranges, updates, gradient_scale, finite, learning_rate);
    return;
  }
  update_on_cuda(ranges, updates, gradient_scale, finite, learning_rate);
}

}  // namespace tptrain::optim
