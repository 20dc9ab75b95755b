// AdamW: one vectorised pass on the CPU, one kernel on CUDA (cuda_update.h).
#include "optim/adamw.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cpu/parallel.h"
#include "optim/adamw_loop.h"
#include "optim/cuda_update.h"
#include "optim/stochastic_rounding.h"

namespace tptrain::optim {

namespace {

constexpr int64_t kElementsPerThread = 32768;
// What a range with random bits or a copy of its weights is cut into, so that the second loop over
// the elements finds them in the first-level cache.
constexpr int64_t kBlock = 2048;

/// "cuda" stands for any of them.
bool is_on(const at::Device& device, const at::Tensor& tensor) {
  return device.has_index() ? tensor.device() == device : tensor.device().type() == device.type();
}

/// Shards are cut in lib/: a range that does not fit is a mistake there, never a user's.
void check_tensor(const AdamWRange& range, size_t index, const at::Tensor& tensor, const char* name,
                  bool type_fits, const char* types) {
  if (type_fits && tensor.is_contiguous() && tensor.numel() == range.master.numel() &&
      tensor.device() == range.master.device()) {
    return;
  }
  throw InternalError(
      problem(cat("AdamW: ", name, " of range ", index, " is ", tensor.scalar_type(), " [",
                  join(tensor.sizes()), "] on ", tensor.device(), ", its master holds ",
                  range.master.numel(), " elements on ", range.master.device()))
          .must(cat("be contiguous ", types, " of the master's size, on its device")));
}

void check(const AdamWRange& range, size_t index, const at::Device& device) {
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
  if (!is_on(device, range.master)) {
    throw InternalError(problem(cat("AdamW: range ", index, " is on ", range.master.device().str()))
                            .must(cat("be on ", device.str())));
  }
  if (range.master.scalar_type() == at::kFloat) return;
  const int64_t begin = range.rounding ? range.rounding->begin : 0;
  const int64_t slice = range.rounding ? range.rounding->spec.local_numel() : 0;
  if (range.rounding && begin >= 0 && begin + range.master.numel() <= slice) return;
  throw InternalError(
      problem(cat("AdamW: the bf16 master of range ", index, " holds ", range.master.numel(),
                  " elements, ",
                  range.rounding ? cat("from element ", begin, " of a slice of ", slice)
                                 : std::string("without a rounding site")))
          .must("say where its elements lie in their tensor"));
}

void check_number(const at::Tensor& number, at::ScalarType type, const at::Device& device,
                  const char* name) {
  if (number.defined() && number.numel() == 1 && number.scalar_type() == type &&
      is_on(device, number)) {
    return;
  }
  throw InternalError(
      problem(cat(name, " of an AdamW update")).must(cat("be one ", type, " on ", device.str())));
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

void begin_on_cpu(const std::vector<AdamWRange>& ranges, const AdamWStep& step,
                  std::vector<AdamWConstants>& constants) {
  if (!*step.finite.const_data_ptr<bool>()) return;
  float* count = step.updates.mutable_data_ptr<float>();
  *count += 1.0f;
  constants.clear();
  for (const AdamWRange& range : ranges) {
    constants.push_back(constants_of(range.options, *step.learning_rate.const_data_ptr<double>(),
                                     static_cast<double>(*count),
                                     *step.gradient_scale.const_data_ptr<float>()));
  }
}

void update_on_cpu(const AdamWRange& range, const AdamWConstants& constants, uint64_t seed,
                   uint32_t update) {
  const bool bf16_moments = range.exp_avg.scalar_type() == at::kBFloat16;
  if (range.master.scalar_type() == at::kBFloat16) {
    bf16_moments ? update_bf16<Bf16>(range, constants, seed, update)
                 : update_bf16<float>(range, constants, seed, update);
  } else {
    bf16_moments ? update_fp32<Bf16>(range, constants) : update_fp32<float>(range, constants);
  }
}

/// begins[p]: the first range of part p; one more: the end.
std::vector<size_t> begins_of_parts(const std::vector<AdamWRange>& ranges) {
  std::vector<size_t> begins = {0};
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto part = static_cast<size_t>(ranges[i].part);
    if (ranges[i].part < 0 || part + 1 < begins.size()) {
      throw InternalError(problem(cat("AdamW: range ", i, " is of part ", ranges[i].part))
                              .must("follow the ranges of the parts before it, from 0"));
    }
    begins.resize(part + 1, i);
  }
  begins.push_back(ranges.size());
  return begins;
}

}  // namespace

AdamW::AdamW(std::vector<AdamWRange> ranges, const Settings& settings)
    : ranges_(std::move(ranges)), begins_(begins_of_parts(ranges_)), settings_(settings) {
  for (size_t i = 0; i < ranges_.size(); ++i) check(ranges_[i], i, settings.device);
  if (settings.device.is_cuda()) {
    on_cuda_ = std::make_unique<CudaUpdate>(ranges_, begins_, settings.device, settings.seed);
  }
}
AdamW::~AdamW() = default;
AdamW::AdamW(AdamW&&) noexcept = default;
AdamW& AdamW::operator=(AdamW&&) noexcept = default;

void AdamW::update(const AdamWStep& step) {
  begin(step);
  for (int part = 0; part + 1 < static_cast<int>(begins_.size()); ++part) apply(part, step);
}

void AdamW::begin(const AdamWStep& step) {
  check_number(step.learning_rate, at::kDouble, settings_.device, "learning_rate");
  check_number(step.gradient_scale, at::kFloat, settings_.device, "gradient_scale");
  check_number(step.finite, at::kBool, settings_.device, "finite");
  check_number(step.updates, at::kFloat, settings_.device, "updates");
  if (on_cuda_ != nullptr) {
    on_cuda_->begin(step);
  } else {
    begin_on_cpu(ranges_, step, constants_);
  }
}

void AdamW::apply(int part, const AdamWStep& step) {
  if (part < 0 || part + 1 >= static_cast<int>(begins_.size())) return;
  if (on_cuda_ != nullptr) {
    on_cuda_->apply(part, step);
    return;
  }
  if (!*step.finite.const_data_ptr<bool>()) return;
  const auto update = static_cast<uint32_t>(*step.updates.const_data_ptr<float>());
  for (size_t i = begins_[part]; i < begins_[part + 1]; ++i)
    update_on_cpu(ranges_[i], constants_[i], settings_.seed, update);
}

}  // namespace tptrain::optim
