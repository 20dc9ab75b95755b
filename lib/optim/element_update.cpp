// Element rules as updates: one vectorised pass on the CPU, one kernel on CUDA (cuda_update.h).
#include "optim/element_update.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cpu/magnitude.h"
#include "kernels/cpu/parallel.h"
#include "optim/cuda_update.h"
#include "optim/element_loop.h"
#include "optim/stochastic_rounding.h"
#include "optim/update_rule.h"

namespace tptrain::optim {

namespace {

constexpr int64_t kElementsPerThread = 32768;
// What a range with random bits, a bf16 gradient or a copy of its weights is cut into, so that the
// second loop over the elements finds them in the first-level cache.
constexpr int64_t kBlock = 2048;

/// "cuda" stands for any of them.
bool is_on(const at::Device& device, const at::Tensor& tensor) {
  return device.has_index() ? tensor.device() == device : tensor.device().type() == device.type();
}

/// Shards are cut in lib/: a range that does not fit is a mistake there, never a user's.
void check_tensor(const UpdateRange& range, size_t index, const at::Tensor& tensor,
                  const char* name, bool type_fits, const char* types) {
  if (type_fits && tensor.is_contiguous() && tensor.numel() == range.master.numel() &&
      tensor.device() == range.master.device()) {
    return;
  }
  throw InternalError(
      problem(cat("update: ", name, " of range ", index, " is ", tensor.scalar_type(), " [",
                  join(tensor.sizes()), "] on ", tensor.device(), ", its master holds ",
                  range.master.numel(), " elements on ", range.master.device()))
          .must(cat("be contiguous ", types, " of the master's size, on its device")));
}

void check(const UpdateRange& range, size_t index, const at::Device& device,
           const std::vector<std::string>& slots, bool takes_bf16_gradients) {
  const auto fp32_or_bf16 = [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16;
  };
  check_tensor(range, index, range.master, "master", fp32_or_bf16(range.master), "fp32 or bf16");
  if (range.slots.size() != slots.size()) {
    throw InternalError(
        problem(cat("update: range ", index, " has ", range.slots.size(), " slots of state"))
            .must(cat("have ", slots.size(), ": ", join(slots))));
  }
  for (size_t s = 0; s < slots.size(); ++s) {
    const bool fits = fp32_or_bf16(range.slots[s]) &&
                      range.slots[s].scalar_type() == range.slots[0].scalar_type();
    check_tensor(range, index, range.slots[s], slots[s].c_str(), fits,
                 "fp32 or bf16, as the other slots,");
  }
  check_tensor(range, index, range.gradient, "gradient",
               range.gradient.scalar_type() == at::kFloat ||
                   (takes_bf16_gradients && fp32_or_bf16(range.gradient)),
               takes_bf16_gradients ? "fp32 or bf16" : "fp32");
  if (range.weights.defined()) {
    check_tensor(range, index, range.weights, "weights",
                 range.weights.scalar_type() == at::kBFloat16, "bf16");
  }
  if (range.amax.defined() && (range.amax.numel() != 1 || range.amax.scalar_type() != at::kInt ||
                               range.amax.device() != range.master.device())) {
    throw InternalError(
        problem(cat("update: the largest magnitude of range ", index, " on ", device.str()))
            .must("be one int32 on the master's device"));
  }
  if (!is_on(device, range.master)) {
    throw InternalError(
        problem(cat("update: range ", index, " is on ", range.master.device().str()))
            .must(cat("be on ", device.str())));
  }
  if (range.master.scalar_type() == at::kFloat) return;
  const int64_t begin = range.rounding ? range.rounding->begin : 0;
  const int64_t slice = range.rounding ? range.rounding->spec.local_numel() : 0;
  if (range.rounding && begin >= 0 && begin + range.master.numel() <= slice) return;
  throw InternalError(
      problem(cat("update: the bf16 master of range ", index, " holds ", range.master.numel(),
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
      problem(cat(name, " of an update")).must(cat("be one ", type, " on ", device.str())));
}

template <typename T>
T* data_of(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename Rule, typename Master, typename Slot>
RuleArrays<Rule, Master, Slot> arrays_of(const UpdateRange& range) {
  RuleArrays<Rule, Master, Slot> arrays{.master = data_of<Master>(range.master)};
  if (range.gradient.scalar_type() == at::kFloat)
    arrays.gradient = range.gradient.const_data_ptr<float>();
  for (size_t s = 0; s < arrays.slots.size(); ++s) arrays.slots[s] = data_of<Slot>(range.slots[s]);
  return arrays;
}

/// Of a bf16 gradient: it is widened first, kBlock elements at most.
template <typename Rule, typename Master, typename Slot>
void update_block(RuleArrays<Rule, Master, Slot> arrays, const UpdateRange& range,
                  const typename Rule::Constants& constants, const uint16_t* rounding,
                  int64_t begin, int64_t end) {
  if (arrays.gradient != nullptr) return update_elements(arrays, constants, rounding, begin, end);
  float wide[kBlock];
  widen_elements(data_of<Bf16>(range.gradient), wide, begin, end);
  arrays.master += begin;
  for (Slot*& slot : arrays.slots) slot += begin;
  arrays.gradient = wide;
  update_elements(arrays, constants, rounding, 0, end - begin);
}

/// What the threads of an update find of UpdateRange::amax; nothing where nobody asks.
class Amax {
 public:
  explicit Amax(const UpdateRange& range)
      : bits_(range.amax.defined() ? data_of<int32_t>(range.amax) : nullptr) {}
  bool wanted() const { return bits_ != nullptr; }
  template <typename Master>
  void raise(const Master* masters, int64_t begin, int64_t end) const {
    if (bits_ == nullptr) return;
    const uint32_t most = kernels::cpu::largest_magnitude(masters + begin, end - begin);
    const std::atomic_ref<int32_t> shared(*bits_);
    auto known = shared.load();
    while (known < static_cast<int32_t>(most) &&
           !shared.compare_exchange_weak(known, static_cast<int32_t>(most))) {
    }
  }

 private:
  int32_t* bits_;
};

/// fp32 master: one loop, or block by block with the rounded copy and the largest magnitude.
template <typename Rule, typename Slot>
void update_fp32(const UpdateRange& range, const typename Rule::Constants& constants) {
  const auto arrays = arrays_of<Rule, float, Slot>(range);
  const Amax amax(range);
  Bf16* weights = range.weights.defined() ? data_of<Bf16>(range.weights) : nullptr;
  kernels::cpu::parallel_rows(
      range.master.numel(), kElementsPerThread, [&](int64_t begin, int64_t end) {
        if (weights == nullptr && !amax.wanted() && arrays.gradient != nullptr) {
          update_elements(arrays, constants, nullptr, begin, end);
          return;
        }
        for (int64_t block = begin; block < end; block += kBlock) {
          const int64_t block_end = std::min(block + kBlock, end);
          update_block(arrays, range, constants, nullptr, block, block_end);
          amax.raise(arrays.master, block, block_end);
          if (weights == nullptr) continue;
          narrow_elements(arrays.master, weights, block, block_end);
        }
      });
}

/// bf16 master: block by block, each with its random bits.
template <typename Rule, typename Slot>
void update_bf16(const UpdateRange& range, const typename Rule::Constants& constants, uint64_t seed,
                 uint32_t update) {
  const auto arrays = arrays_of<Rule, Bf16, Slot>(range);
  const Amax amax(range);
  Bf16* weights = range.weights.defined() ? data_of<Bf16>(range.weights) : nullptr;
  const std::array<uint32_t, 2> key = rounding_key(seed, range.rounding->spec.name);
  kernels::cpu::parallel_rows(
      range.master.numel(), kElementsPerThread, [&](int64_t begin, int64_t end) {
        uint16_t bits[kBlock];
        for (int64_t block = begin; block < end; block += kBlock) {
          const int64_t block_end = std::min(block + kBlock, end);
          fill_rounding_bits(*range.rounding, key, update, block, block_end, bits);
          update_block(arrays, range, constants, bits, block, block_end);
          amax.raise(arrays.master, block, block_end);
          if (weights != nullptr)
            std::copy(arrays.master + block, arrays.master + block_end, weights + block);
        }
      });
}

template <typename Rule>
void update_on_cpu(const UpdateRange& range, const typename Rule::Constants& constants,
                   uint64_t seed, uint32_t update) {
  const bool bf16_slots = range.slots[0].scalar_type() == at::kBFloat16;
  if (range.master.scalar_type() == at::kBFloat16) {
    bf16_slots ? update_bf16<Rule, Bf16>(range, constants, seed, update)
               : update_bf16<Rule, float>(range, constants, seed, update);
  } else {
    bf16_slots ? update_fp32<Rule, Bf16>(range, constants)
               : update_fp32<Rule, float>(range, constants);
  }
}

/// begins[p]: the first range of part p; one more: the end.
std::vector<size_t> begins_of_parts(const std::vector<UpdateRange>& ranges) {
  std::vector<size_t> begins = {0};
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto part = static_cast<size_t>(ranges[i].part);
    if (ranges[i].part < 0 || part + 1 < begins.size()) {
      throw InternalError(problem(cat("update: range ", i, " is of part ", ranges[i].part))
                              .must("follow the ranges of the parts before it, from 0"));
    }
    begins.resize(part + 1, i);
  }
  begins.push_back(ranges.size());
  return begins;
}

template <typename Rule>
class ElementUpdate final : public Update {
 public:
  ElementUpdate(std::vector<UpdateRange> ranges, const UpdateSettings& settings)
      : ranges_(std::move(ranges)), begins_(begins_of_parts(ranges_)), settings_(settings) {
    for (size_t i = 0; i < ranges_.size(); ++i)
      check(ranges_[i], i, settings.device, slot_names_of<Rule>(), kTakesBf16Gradients<Rule>);
    if (settings.device.is_cuda())
      on_cuda_.emplace(ranges_, begins_, settings.device, settings.seed);
  }

  int parts() const override { return static_cast<int>(begins_.size()) - 1; }

  void begin(const UpdateStep& step) override {
    check_number(step.learning_rate, at::kDouble, settings_.device, "learning_rate");
    check_number(step.gradient_scale, at::kFloat, settings_.device, "gradient_scale");
    check_number(step.finite, at::kBool, settings_.device, "finite");
    check_number(step.updates, at::kFloat, settings_.device, "updates");
    on_cuda_ ? on_cuda_->begin(step) : begin_on_cpu(step);
  }

  void apply(int part, const UpdateStep& step) override {
    if (part < 0 || part >= parts()) return;
    if (on_cuda_) {
      on_cuda_->apply(part, step);
      return;
    }
    if (!*step.finite.const_data_ptr<bool>()) return;
    const auto update = static_cast<uint32_t>(*step.updates.const_data_ptr<float>());
    for (size_t i = begins_[part]; i < begins_[part + 1]; ++i)
      update_on_cpu<Rule>(ranges_[i], constants_[i], settings_.seed, update);
  }

 private:
  void begin_on_cpu(const UpdateStep& step) {
    if (!*step.finite.const_data_ptr<bool>()) return;
    float* count = step.updates.mutable_data_ptr<float>();
    *count += 1.0f;
    constants_.clear();
    for (const UpdateRange& range : ranges_) {
      if (range.amax.defined()) *data_of<int32_t>(range.amax) = 0;
      constants_.push_back(Rule::constants_of(
          range.options, *step.learning_rate.const_data_ptr<double>(), static_cast<double>(*count),
          *step.gradient_scale.const_data_ptr<float>()));
    }
  }

  std::vector<UpdateRange> ranges_;
  std::vector<size_t> begins_;                       // of the parts among the ranges, and the end
  std::vector<typename Rule::Constants> constants_;  // of the ranges, as begin() made them
  UpdateSettings settings_;
  std::optional<CudaUpdate<Rule>> on_cuda_;
};

}  // namespace

template <typename Rule>
const std::vector<std::string>& slot_names_of() {
  static const std::vector<std::string> slots(std::begin(Rule::kSlotNames),
                                              std::end(Rule::kSlotNames));
  return slots;
}

template <typename Rule>
std::unique_ptr<Update> element_update(std::vector<UpdateRange> ranges,
                                       const UpdateSettings& settings) {
  return std::make_unique<ElementUpdate<Rule>>(std::move(ranges), settings);
}

#define TPTRAIN_INSTANTIATE(Rule)                                                 \
  template const std::vector<std::string>& slot_names_of<Rule>();                 \
  template std::unique_ptr<Update> element_update<Rule>(std::vector<UpdateRange>, \
                                                        const UpdateSettings&);
TPTRAIN_ELEMENT_RULES(TPTRAIN_INSTANTIATE)
#undef TPTRAIN_INSTANTIATE

}  // namespace tptrain::optim
