// One thread eight elements, in two packs of four: 8 loads of 16 bytes on their way at once; of
// bf16 masters that move in words, eight neighbours (eights.cuh). The arithmetic is
// element_loop.cpp's in its order; this file is compiled without fused multiply-add, as that one,
// so that an element's update does not depend on the device that makes it.
#include <type_traits>

#include "kernels/cuda/multi_tensor.cuh"
#include "optim/cuda/amax.cuh"
#include "optim/cuda/arrays.cuh"
#include "optim/cuda/eights.cuh"
#include "optim/cuda/element_update.h"
#include "optim/cuda/rounding.cuh"

namespace tptrain::optim::cuda {

namespace {

using namespace kernels::cuda;

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
  for (int64_t i = threadIdx.x; i < args.amax_count; i += kThreads) *args.amax[i] = 0;
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

/// kWhole: the chunk has all its elements, all in packs, and no load waits for another.
template <bool kWhole, typename Rule, typename Master, typename Slot, typename Gradient>
__device__ void update_chunk(const Arrays<Rule, Master, Slot, Gradient>& arrays, const Chunk& chunk,
                             const Range& range, const typename Rule::Constants& c,
                             const float* updates, Amax& amax) {
  // Where slots are fp32 the gradient's loads behind all others are 1 % faster, where they are bf16
  // 4 % slower.
  constexpr bool kGradientLast = sizeof(Slot) == sizeof(float);
  const bool packs = kWhole || arrays.in_packs();
  bool no_gradient = !kGradientLast && holds_zeros(range.of_gradient, chunk);
  Elements<Rule> elements[kPacks];
  const auto load_gradient = [&](int k) {
    const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
    const int count = kWhole ? static_cast<int>(kPack) : chunk.count - at;
    load_four(arrays.gradient + at, no_gradient ? 0 : count, packs, elements[k].g);
  };
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
    const int count = kWhole ? static_cast<int>(kPack) : chunk.count - at;
    if (!kGradientLast) load_gradient(k);
    load_four(arrays.master + at, count, packs, elements[k].p);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s)
      load_four(arrays.slots[s] + at, count, packs, elements[k].slots[s]);
  }
  if (kGradientLast) {
    no_gradient = holds_zeros(range.of_gradient, chunk);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) load_gradient(k);
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
    if (!kWhole) {
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        if (j >= count) narrow.values[j] = kernels::cuda::narrow<Bf16>(0.0f);
    }
    amax.take(narrow);
  }
}

template <typename Rule, typename Master, typename Slot, typename Gradient>
__global__ void __launch_bounds__(kThreads, kResident) update_kernel(Pass<Rule> args) {
  const Chunk chunk = args.chunks[blockIdx.x];
  if (!*args.finite) return;
  const Range& range = args.ranges[chunk.tensor];
  const typename Rule::Constants constants = args.constants[range.options];
  const Arrays<Rule, Master, Slot, Gradient> arrays(range, chunk.begin);
  Amax amax(range);
  const bool whole = chunk.count == kChunkElements;
  if (whole && arrays.in_packs()) {
    update_chunk<true>(arrays, chunk, range, constants, args.updates, amax);
  } else {
    update_chunk<false>(arrays, chunk, range, constants, args.updates, amax);
  }
  amax.store_to(range);
}

/// launch(slot, gradient): a number of the type of each.
template <typename Rule, typename Launch>
void with_types(const Pass<Rule>& args, const Launch& launch) {
  const auto with_gradient = [&](auto slot) {
    if constexpr (kTakesBf16Gradients<Rule>) {
      if (args.gradient == Element::bf16) return launch(slot, Bf16{});
    }
    launch(slot, float{});
  };
  args.slots == Element::fp32 ? with_gradient(float{}) : with_gradient(Bf16{});
}

}  // namespace

template <typename Rule>
void begin(const Begin<Rule>& args, Stream stream) {
  begin_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
}

template <typename Rule>
void update(const Pass<Rule>& args, Stream stream) {
  if (args.chunk_count == 0) return;
  with_types(args, [&](auto slot, auto gradient) {
    using Slot = decltype(slot);
    using Gradient = decltype(gradient);
    const auto kernel = args.master == Element::fp32 ? update_kernel<Rule, float, Slot, Gradient>
                                                     : update_kernel<Rule, Bf16, Slot, Gradient>;
    kernel<<<static_cast<unsigned>(args.chunk_count), kThreads, 0,
             static_cast<cudaStream_t>(stream)>>>(args);
  });
}

template <typename Rule>
void update_words(const Pass<Rule>& args, const LaunchedRanges& ranges, Stream stream) {
  with_types(args, [&](auto slot, auto gradient) {
    words_kernel<Rule, decltype(slot), decltype(gradient)>
        <<<static_cast<unsigned>(ranges.first_chunk[ranges.count]), kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(ranges, args);
  });
}

#define TPTRAIN_INSTANTIATE(Rule)                  \
  template void begin(const Begin<Rule>&, Stream); \
  template void update(const Pass<Rule>&, Stream); \
  template void update_words(const Pass<Rule>&, const LaunchedRanges&, Stream);
TPTRAIN_ELEMENT_RULES(TPTRAIN_INSTANTIATE)

}  // namespace tptrain::optim::cuda
