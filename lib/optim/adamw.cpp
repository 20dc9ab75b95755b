// AdamW: one vectorised pass on the CPU; elsewhere adamw_composition.h.
#include "optim/adamw.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cpu/parallel.h"
#include "optim/adamw_composition.h"
#include "optim/adamw_loop.h"
#include "optim/stochastic_rounding.h"

namespace tptrain::optim {

namespace {

constexpr int64_t kElementsPerThread = 32768;
// What a range with random bits or a copy of its weights is cut into, so that the second loop over
// the elements finds them in the first-level cache.
constexpr int64_t kBlock = 2048;

/// Shards are cut in lib/: a range that does not fit is a mistake there, never a user's.
void check_tensor(const AdamWRange& range, size_t index, const at::Tensor& tensor, const char* name,
                  bool type_fits, const char* types) {
  if (type_fits && tensor.is_contiguous() && tensor.numel() == range.master.numel() &&
      tensor.device() == range.master.device()) {
    return;
  }
  throw InternalError(
      problem(cat("adamw_update: ", name, " of range ", index, " is ", tensor.scalar_type(), " [",
                  join(tensor.sizes()), "] on ", tensor.device(), ", its master holds ",
                  range.master.numel(), " elements on ", range.master.device()))
          .must(cat("be contiguous ", types, " of the master's size, on its device")));
}

void check(const AdamWRange& range, size_t index) {
  const auto fp32_or_bf16 = [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16;
  };
  check_tensor(range, index, range.master, "master", fp32_or_bf16(range.master), "fp32 or bf16");
  check_tensor(range, index, range.exp_avg, "exp_avg", fp32_or_bf16(range.exp_avg), "fp32 or bf16");
  check_tensor(range, index, range.exp_avg_sq, "exp_avg_sq",
               range.exp_avg_sq.scalar_type() == range.exp_avg.scalar_type(),
               "of exp_avg's type and");
  check_tensor(range, index, range.gradient, "gradient", range.gradient.scalar_type() == at::kFloat,
               "fp32");
  if (range.weights.defined()) {
    check_tensor(range, index, range.weights, "weights",
                 range.weights.scalar_type() == at::kBFloat16, "bf16");
  }
  if (range.master.scalar_type() == at::kFloat) return;
  const int64_t begin = range.rounding ? range.rounding->begin : 0;
  const int64_t slice = range.rounding ? range.rounding->spec.local_numel() : 0;
  if (range.rounding && begin >= 0 && begin + range.master.numel() <= slice) return;
  throw InternalError(
      problem(cat("adamw_update: the bf16 master of range ", index, " holds ", range.master.numel(),
                  " elements, ",
                  range.rounding ? cat("from element ", begin, " of a slice of ", slice)
                                 : std::string("without a rounding site")))
          .must("say where its elements lie in their tensor"));
}

AdamWConstants constants_of(const AdamWOptions& options, double step_learning_rate, double update,
                            float gradient_scale) {
  const double learning_rate = step_learning_rate * options.learning_rate_scale;
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

template <typename T>
T* data_of(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename Master, typename Moment>
AdamWArrays<Master, Moment> arrays_of(const AdamWRange& range) {
  return {data_of<Master>(range.master), data_of<Moment>(range.exp_avg),
          data_of<Moment>(range.exp_avg_sq), range.gradient.const_data_ptr<float>()};
}

/// fp32 master: one loop, or block by block with the rounded copy.
template <typename Moment>
void update_fp32(const AdamWRange& range, const AdamWConstants& constants) {
  const AdamWArrays<float, Moment> arrays = arrays_of<float, Moment>(range);
  Bf16* weights = range.weights.defined() ? data_of<Bf16>(range.weights) : nullptr;
  kernels::cpu::parallel_rows(range.master.numel(), kElementsPerThread,
                              [&](int64_t begin, int64_t end) {
                                if (weights == nullptr) {
                                  adamw_elements(arrays, constants, begin, end);
                                  return;
                                }
                                for (int64_t block = begin; block < end; block += kBlock) {
                                  const int64_t block_end = std::min(block + kBlock, end);
                                  adamw_elements(arrays, constants, block, block_end);
                                  narrow_elements(arrays.master, weights, block, block_end);
                                }
                              });
}

/// bf16 master: block by block, each with its random bits.
template <typename Moment>
void update_bf16(const AdamWRange& range, const AdamWConstants& constants, uint64_t seed,
                 uint32_t update) {
  const AdamWArrays<Bf16, Moment> arrays = arrays_of<Bf16, Moment>(range);
  Bf16* weights = range.weights.defined() ? data_of<Bf16>(range.weights) : nullptr;
  const std::array<uint32_t, 2> key = rounding_key(seed, range.rounding->spec.name);
  kernels::cpu::parallel_rows(
      range.master.numel(), kElementsPerThread, [&](int64_t begin, int64_t end) {
        uint16_t bits[kBlock];
        for (int64_t block = begin; block < end; block += kBlock) {
          const int64_t block_end = std::min(block + kBlock, end);
          fill_rounding_bits(*range.rounding, key, update, block, block_end, bits);
          adamw_elements(arrays, constants, bits, block, block_end);
          if (weights != nullptr)
            std::copy(arrays.master + block, arrays.master + block_end, weights + block);
        }
      });
}

void update_on_cpu(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                   const at::Tensor& gradient_scale, const at::Tensor& finite,
                   const AdamWStep& step) {
  if (!*finite.const_data_ptr<bool>()) return;
  float* count = updates.data_ptr<float>();
  *count += 1.0f;
  for (const AdamWRange& range : ranges) {
    const AdamWConstants constants =
        constants_of(range.options, step.learning_rate, static_cast<double>(*count),
                     *gradient_scale.const_data_ptr<float>());
    const uint32_t update = static_cast<uint32_t>(*count);
    const bool bf16_moments = range.exp_avg.scalar_type() == at::kBFloat16;
    if (range.master.scalar_type() == at::kBFloat16) {
      bf16_moments ? update_bf16<Bf16>(range, constants, step.seed, update)
                   : update_bf16<float>(range, constants, step.seed, update);
    } else {
      bf16_moments ? update_fp32<Bf16>(range, constants) : update_fp32<float>(range, constants);
    }
  }
}

}  // namespace

void adamw_update(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                  const at::Tensor& gradient_scale, const at::Tensor& finite,
                  const AdamWStep& step) {
  for (size_t i = 0; i < ranges.size(); ++i) check(ranges[i], i);
  if (updates.is_cpu()) {
    update_on_cpu(ranges, updates, gradient_scale, finite, step);
  } else {
    adamw_by_composition(ranges, updates, gradient_scale, finite, step);
  }
}

}  // namespace tptrain::optim
