// Whole chunks whose elements move in words of 16 bytes, a thread eight neighbours, which share
// their random bits. What its arrays are a block finds in the kernel's parameters.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/cuda/multi_tensor.cuh"
#include "optim/cuda/amax.cuh"
#include "optim/cuda/arrays.cuh"
#include "optim/cuda/rounding.cuh"

namespace tptrain::optim::cuda {

constexpr int kEight = 8;
static_assert(kChunkElements == kernels::cuda::kThreads * kEight);

/// Eight neighbours as they lie in memory, in words of 16 bytes.
template <typename T>
struct Eight {
  static constexpr int kWidth = 16 / sizeof(T);
  static constexpr int kWords = kEight / kWidth;
  kernels::cuda::Pack<T, kWidth> words[kWords];

  __device__ void load_from(const T* from) {
#pragma unroll
    for (int i = 0; i < kWords; ++i)
      words[i] = kernels::cuda::load_pack<T, kWidth>(from + i * kWidth);
  }
  __device__ void store_to(T* to) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) kernels::cuda::store_pack(to + i * kWidth, words[i]);
  }
  __device__ void set_zero() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = kernels::cuda::zero_pack<T, kWidth>();
  }
  __device__ T& at(int i) { return words[i / kWidth].values[i % kWidth]; }
  __device__ float operator[](int i) const {
    return kernels::cuda::wide(words[i / kWidth].values[i % kWidth]);
  }
  /// Elements i and i + 1, rounded to nearest.
  __device__ void set_two(int i, float first, float second) {
    if constexpr (sizeof(T) == sizeof(float)) {
      at(i) = first;
      at(i + 1) = second;
    } else {
      const __nv_bfloat162 two = __floats2bfloat162_rn(first, second);  // one instruction
      at(i) = two.x;
      at(i + 1) = two.y;
    }
  }
};

/// Roots and quotients of numbers that are neither zero nor tiny nor huge, to the last bit: the
/// refinements that the compiler makes as well, but one question for eight elements instead of two
/// for each. `plain`: whether all numbers were of that kind.
struct PlainArithmetic {
  bool plain = true;

  __device__ float root(float x) {
    plain = plain & (x >= 0x1p-101f);  // else what is left of x would be rounded
    float inverse;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    const float root = __fmul_rn(x, inverse);
    return __fmaf_rn(__fmaf_rn(-root, root, x), __fmul_rn(inverse, 0.5f), root);
  }
  /// b: a root of such a number, times one or more, or larger.
  __device__ float quotient(float a, float b) {
    plain = plain & (b <= 0x1p20f) & (fabsf(a) >= 0x1p-100f) & (fabsf(a) <= 0x1p60f);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
    inverse = __fmaf_rn(__fmaf_rn(-b, inverse, 1.0f), inverse, inverse);
    const float quotient = __fmul_rn(a, inverse);
    return __fmaf_rn(__fmaf_rn(-b, quotient, a), inverse, quotient);
  }
};

template <typename Rule>
__device__ float step_of(PlainArithmetic& by, float gradient, float master,
                         float (&slots)[Rule::kSlots], const typename Rule::Constants& c) {
  if constexpr (std::is_same_v<Rule, AdamW>) {
    return Rule::step_by(by, gradient, master, slots, c);
  } else {
    return Rule::step(gradient, master, slots, c);
  }
}

/// Eight neighbours of a bf16 master, and what becomes of them.
template <typename Rule, typename Slot, typename Gradient>
struct EightElements {
  using From = Arrays<Rule, Bf16, Slot, Gradient>;
  Eight<Gradient> gradient;
  Eight<Bf16> master;
  Eight<Slot> slots[Rule::kSlots];

  /// All but the gradient.
  __device__ void load_from(const From& arrays, int at) {
    master.load_from(arrays.master + at);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) slots[s].load_from(arrays.slots[s] + at);
  }
  __device__ void load_gradient_from(const From& arrays, int at, bool no_gradient) {
    no_gradient ? gradient.set_zero() : gradient.load_from(arrays.gradient + at);
  }

  /// step(gradient, master, slots) of each; round(value, 16 bits).
  template <typename Step, typename Round>
  __device__ void update(const uint4& random, const Step& step, const Round& round) {
    const uint32_t words[] = {random.x, random.y, random.z, random.w};
#pragma unroll
    for (int i = 0; i < kEight; i += 2) {
      float values[2][Rule::kSlots], updated[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int s = 0; s < Rule::kSlots; ++s) values[j][s] = slots[s][i + j];
        updated[j] = step(gradient[i + j], master[i + j], values[j]);
      }
#pragma unroll
      for (int s = 0; s < Rule::kSlots; ++s) slots[s].set_two(i, values[0][s], values[1][s]);
      master.at(i) = round(updated[0], words[i / 2] & 0xffffu);
      master.at(i + 1) = round(updated[1], words[i / 2] >> 16);
    }
  }

  __device__ void store_to(const From& arrays, int at, Amax& amax) const {
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) slots[s].store_to(arrays.slots[s] + at);
    master.store_to(arrays.master + at);
    if (arrays.weights != nullptr) master.store_to(arrays.weights + at);
    amax.take(master.words[0]);
  }
};

/// A thread's eight again, by the rule's own arithmetic: where numbers are not plain. Apart, since
/// in the kernel it would take the registers of what happens a million times as often. The
/// magnitudes of what it stores (Amax::most).
template <typename Rule, typename Slot, typename Gradient>
__device__ __noinline__ uint32_t update_exactly(const Range& range,
                                                const typename Rule::Constants& constants,
                                                int64_t first, bool no_gradient, uint4 random) {
  const Arrays<Rule, Bf16, Slot, Gradient> arrays(range, first);
  EightElements<Rule, Slot, Gradient> eight;
  eight.load_from(arrays, 0);
  eight.load_gradient_from(arrays, 0, no_gradient);
  const typename Rule::Constants c = constants;
  eight.update(
      random,
      [&](float gradient, float master, auto& slots) {
        return Rule::step(gradient, master, slots, c);
      },
      [](float value, uint32_t bits) { return round_stochastically(value, bits); });
  Amax amax;
  eight.store_to(arrays, 0, amax);
  return amax.most();
}

/// Blocks on a multiprocessor. Of bf16 slots 5, with 48 registers a thread: with four of them
/// memory waits, six would want for registers.
template <typename Slot>
constexpr int kWordsBlocks = sizeof(Slot) == sizeof(Bf16) ? 5 : 4;

/// A block a chunk.
template <typename Rule, typename Slot, typename Gradient>
__global__ void __launch_bounds__(kernels::cuda::kThreads, kWordsBlocks<Slot>)
    words_kernel(const __grid_constant__ LaunchedRanges launched, Pass<Rule> args) {
  const auto chunk = static_cast<int32_t>(blockIdx.x);
  int of = 0;
  for (int above = launched.count; above - of > 1;) {
    const int middle = (of + above) / 2;
    (chunk < launched.first_chunk[middle] ? above : of) = middle;
  }
  const Range& range = launched.ranges[of];
  const int64_t begin = (chunk - launched.first_chunk[of]) * kChunkElements;
  const Arrays<Rule, Bf16, Slot, Gradient> arrays(range, begin);
  const int at = kEight * static_cast<int>(threadIdx.x);
  // All loads are on their way before anything is asked of one.
  EightElements<Rule, Slot, Gradient> eight;
  eight.load_from(arrays, at);
  const kernels::cuda::Chunk elements{begin, of, static_cast<int32_t>(kChunkElements)};
  const bool no_gradient = holds_zeros(range.of_gradient, elements);
  eight.load_gradient_from(arrays, at, no_gradient);
  if (!*args.finite) return;
  const typename Rule::Constants& constants = args.constants[range.options];
  const typename Rule::Constants c = constants;
  Amax amax(range);
  const uint4 random =
      bits_of_eight(range.rounding, begin + at, static_cast<uint32_t>(*args.updates));
  PlainArithmetic by;
  eight.update(
      random,
      [&](float gradient, float master, auto& slots) {
        return step_of<Rule>(by, gradient, master, slots, c);
      },
      [&](float value, uint32_t bits) {
        by.plain = by.plain & (fabsf(value) < INFINITY);
        return __ushort_as_bfloat16(
            static_cast<unsigned short>((__float_as_uint(value) + bits) >> 16));
      });
  if (by.plain) {
    eight.store_to(arrays, at, amax);
  } else {  // again: nothing is stored yet
    amax.take_most(
        update_exactly<Rule, Slot, Gradient>(range, constants, begin + at, no_gradient, random));
  }
  amax.store_to(range);
}

}  // namespace tptrain::optim::cuda
