// One thread eight elements, in two packs of four: 8 loads of 16 bytes on their way at once. Where
// masters are bf16, eight neighbours, which share their random bits: drawing those anew for every
// pack took longer than all that an update moves. The arithmetic is element_loop.cpp's in its
// order; this file is compiled without fused multiply-add, as that one, so that an element's update
// does not depend on the device that makes it.
#include <type_traits>

#include "kernels/cuda/multi_tensor.cuh"
#include "optim/cuda/element_update.h"
#include "optim/cuda/rounding.cuh"

namespace tptrain::optim::cuda {

namespace {

using namespace kernels::cuda;
using Bf16 = __nv_bfloat16;

constexpr int kPacks = kChunkElements / (kThreads * kPack);
static_assert(kPacks * kThreads * kPack == kChunkElements);
constexpr int kResident = 4;  // blocks on a multiprocessor, of 64 registers a thread

template <typename Rule>
__global__ void begin_kernel(Begin<Rule> args) {
  if (!*args.finite) return;
  const float update = *args.updates + 1.0f;
  for (int64_t i = threadIdx.x; i < args.count; i += kThreads) {
    args.constants[i] = Rule::constants_of(args.options[i], *args.learning_rate,
                                           static_cast<double>(update), *args.gradient_scale);
  }
  __syncthreads();  // every thread has read the counter
  if (threadIdx.x == 0) *args.updates = update;
}

template <typename Rule>
struct Elements {
  float g[kPack], p[kPack], slots[Rule::kSlots][kPack];

  __device__ void step(const typename Rule::Constants& constants) {
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      float values[Rule::kSlots];
#pragma unroll
      for (int s = 0; s < Rule::kSlots; ++s) values[s] = slots[s][j];
      p[j] = Rule::step(g[j], p[j], values, constants);
#pragma unroll
      for (int s = 0; s < Rule::kSlots; ++s) slots[s][j] = values[s];
    }
  }
};

template <typename Rule, typename Master, typename Slot, typename Gradient>
struct Arrays {
  Master* master;
  Slot* slots[Rule::kSlots];
  const Gradient* gradient;
  Bf16* weights;  // or null

  __device__ Arrays(const Range& range, int64_t begin)
      : master(in_global_memory(static_cast<Master*>(range.master)) + begin),
        gradient(in_global_memory(static_cast<const Gradient*>(range.gradient)) + begin),
        weights(range.weights == nullptr
                    ? nullptr
                    : in_global_memory(static_cast<Bf16*>(range.weights)) + begin) {
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s)
      slots[s] = in_global_memory(static_cast<Slot*>(range.slots[s])) + begin;
  }
  __device__ bool in_packs() const {
    bool all = packs_begin_at(master) && packs_begin_at(gradient) && packs_begin_at(weights);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) all = all && packs_begin_at(slots[s]);
    return all;
  }
  __device__ bool in_words() const {
    auto all = reinterpret_cast<uintptr_t>(master) | reinterpret_cast<uintptr_t>(gradient) |
               reinterpret_cast<uintptr_t>(weights);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) all |= reinterpret_cast<uintptr_t>(slots[s]);
    return all % 16 == 0;
  }
};

constexpr int kEight = 8;
static_assert(kChunkElements == kThreads * kEight);

/// Eight neighbours as they lie in memory, in words of 16 bytes.
template <typename T>
struct Eight {
  static constexpr int kWidth = 16 / sizeof(T);
  static constexpr int kWords = kEight / kWidth;
  Pack<T, kWidth> words[kWords];

  __device__ void load_from(const T* from) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = load_pack<T, kWidth>(from + i * kWidth);
  }
  __device__ void set_zero() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = zero_pack<T, kWidth>();
  }
  __device__ void store_to(T* to) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) store_pack(to + i * kWidth, words[i]);
  }
  __device__ float operator[](int i) const { return wide(words[i / kWidth].values[i % kWidth]); }
  /// Elements i and i + 1, rounded to nearest.
  __device__ void set_two(int i, float first, float second) {
    T* to = &words[i / kWidth].values[i % kWidth];
    if constexpr (sizeof(T) == sizeof(float)) {
      to[0] = first;
      to[1] = second;
    } else {
      const __nv_bfloat162 two = __floats2bfloat162_rn(first, second);  // one instruction
      to[0] = two.x;
      to[1] = two.y;
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

/// Eight neighbours that share their random bits, of a bf16 master.
template <typename Rule, typename Slot, typename Gradient>
struct EightElements {
  using From = Arrays<Rule, Bf16, Slot, Gradient>;
  Eight<Gradient> gradient;
  Eight<Bf16> master;
  Eight<Slot> slots[Rule::kSlots];

  __device__ void load_from(const From& arrays, int at, bool no_gradient) {
    no_gradient ? gradient.set_zero() : gradient.load_from(arrays.gradient + at);
    master.load_from(arrays.master + at);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) slots[s].load_from(arrays.slots[s] + at);
  }
  __device__ void store_to(const From& arrays, int at) const {
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) slots[s].store_to(arrays.slots[s] + at);
    master.store_to(arrays.master + at);
    if (arrays.weights != nullptr) master.store_to(arrays.weights + at);
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
      Bf16* to = &master.words[0].values[i];
      to[0] = round(updated[0], words[i / 2] & 0xffffu);
      to[1] = round(updated[1], words[i / 2] >> 16);
    }
  }
};

/// A chunk that has all its elements, all in words, eight of which share their random bits.
template <typename Rule, typename Slot, typename Gradient>
__device__ void update_eights(const Arrays<Rule, Bf16, Slot, Gradient>& arrays, const Chunk& chunk,
                              const Range& range, const typename Rule::Constants& c,
                              const float* updates) {
  const int at = kEight * static_cast<int>(threadIdx.x);
  EightElements<Rule, Slot, Gradient> eight;
  const bool no_gradient = holds_zeros(range.of_gradient, chunk);
  eight.load_from(arrays, at, no_gradient);
  // Drawn while those are on their way.
  const uint4 random =
      bits_of_eight(range.rounding, chunk.begin + at, static_cast<uint32_t>(*updates));
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
  if (!by.plain) {  // again: nothing is stored yet
    eight.load_from(arrays, at, no_gradient);
    eight.update(
        random,
        [&](float gradient, float master, auto& slots) {
          return Rule::step(gradient, master, slots, c);
        },
        [](float value, uint32_t bits) { return round_stochastically(value, bits); });
  }
  eight.store_to(arrays, at);
}

/// kWhole: the chunk has all its elements, all in packs, and no load waits for another.
template <bool kWhole, typename Rule, typename Master, typename Slot, typename Gradient>
__device__ void update_chunk(const Arrays<Rule, Master, Slot, Gradient>& arrays, const Chunk& chunk,
                             const Range& range, const typename Rule::Constants& c,
                             const float* updates) {
  const bool packs = kWhole || arrays.in_packs();
  const bool no_gradient = holds_zeros(range.of_gradient, chunk);
  Elements<Rule> elements[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
    const int count = kWhole ? static_cast<int>(kPack) : chunk.count - at;
    load_four(arrays.gradient + at, no_gradient ? 0 : count, packs, elements[k].g);
    load_four(arrays.master + at, count, packs, elements[k].p);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s)
      load_four(arrays.slots[s] + at, count, packs, elements[k].slots[s]);
  }
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
    const int count = kWhole ? static_cast<int>(kPack) : chunk.count - at;
    if (count <= 0) return;
    elements[k].step(c);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s)
      store_four(arrays.slots[s] + at, count, packs, narrow_four<Slot>(elements[k].slots[s]));
    Four<Bf16> narrow;
    if constexpr (sizeof(Master) == sizeof(float)) {
      store_four(arrays.master + at, count, packs, narrow_four<float>(elements[k].p));
      narrow = narrow_four<Bf16>(elements[k].p);
    } else {
      RoundingBits bits(range.rounding, chunk.begin + at, static_cast<uint32_t>(*updates));
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        narrow.values[j] = round_stochastically(elements[k].p[j], bits.next());
      store_four(arrays.master + at, count, packs, narrow);
    }
    if (arrays.weights != nullptr) store_four(arrays.weights + at, count, packs, narrow);
  }
}

template <typename Rule, typename Master, typename Slot, typename Gradient>
__global__ void __launch_bounds__(kThreads, kResident) update_kernel(Pass<Rule> args) {
  const Chunk chunk = args.chunks[blockIdx.x];
  if (!*args.finite) return;
  const Range& range = args.ranges[chunk.tensor];
  const typename Rule::Constants constants = args.constants[range.options];
  const Arrays<Rule, Master, Slot, Gradient> arrays(range, chunk.begin);
  const bool whole = chunk.count == kChunkElements;
  if constexpr (sizeof(Master) == sizeof(Bf16)) {
    if (whole && arrays.in_words() && in_eights(range.rounding, chunk.begin)) {
      update_eights<Rule>(arrays, chunk, range, constants, args.updates);
      return;
    }
  }
  if (whole && arrays.in_packs()) {
    update_chunk<true>(arrays, chunk, range, constants, args.updates);
  } else {
    update_chunk<false>(arrays, chunk, range, constants, args.updates);
  }
}

template <typename Rule, typename Master, typename Slot>
void launch(const Pass<Rule>& args, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(args.chunk_count);
  if constexpr (kTakesBf16Gradients<Rule>) {
    if (args.gradient == Element::bf16) {
      update_kernel<Rule, Master, Slot, Bf16><<<blocks, kThreads, 0, stream>>>(args);
      return;
    }
  }
  update_kernel<Rule, Master, Slot, float><<<blocks, kThreads, 0, stream>>>(args);
}

template <typename Rule, typename Master>
void launch(const Pass<Rule>& args, cudaStream_t stream) {
  if (args.slots == Element::fp32) {
    launch<Rule, Master, float>(args, stream);
  } else {
    launch<Rule, Master, Bf16>(args, stream);
  }
}

}  // namespace

template <typename Rule>
void begin(const Begin<Rule>& args, Stream stream) {
  begin_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
}

template <typename Rule>
void update(const Pass<Rule>& args, Stream stream) {
  if (args.chunk_count == 0) return;
  if (args.master == Element::fp32) {
    launch<Rule, float>(args, static_cast<cudaStream_t>(stream));
  } else {
    launch<Rule, Bf16>(args, static_cast<cudaStream_t>(stream));
  }
}

#define TPTRAIN_INSTANTIATE(Rule)                  \
  template void begin(const Begin<Rule>&, Stream); \
  template void update(const Pass<Rule>&, Stream);
TPTRAIN_ELEMENT_RULES(TPTRAIN_INSTANTIATE)

}  // namespace tptrain::optim::cuda
