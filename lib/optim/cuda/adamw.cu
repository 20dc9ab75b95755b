// One thread eight elements, in two packs of four: 8 loads of 16 bytes on their way at once. The
// arithmetic is adamw_loop.cpp's in its order; this file is compiled without fused multiply-add, as
// that one, so that an element's update does not depend on the device that makes it.
#include "base/philox.cuh"
#include "kernels/cuda/multi_tensor.cuh"
#include "optim/cuda/adamw.h"

namespace tptrain::optim::cuda {

namespace {

using namespace kernels::cuda;
using Bf16 = __nv_bfloat16;

constexpr int kPacks = kChunkElements / (kThreads * kPack);
static_assert(kPacks * kThreads * kPack == kChunkElements);

__global__ void begin_kernel(Begin args) {
  if (!*args.finite) return;
  const float update = *args.updates + 1.0f;
  for (int64_t i = threadIdx.x; i < args.count; i += kThreads) {
    args.constants[i] = constants_of(args.options[i], *args.learning_rate,
                                     static_cast<double>(update), *args.gradient_scale);
  }
  __syncthreads();  // every thread has read the counter
  if (threadIdx.x == 0) *args.updates = update;
}

/// The 16 bits of elements `first`, `first` + 1, ... of a range: eight elements of the tensor share
/// a Philox call.
class RoundingBits {
 public:
  __device__ RoundingBits(const Rounding& site, int64_t first, uint32_t update)
      : site_(site), update_(update) {
    const int64_t local = site.begin + first;
    // A division of 64 bits costs more than the rest of an update: most slices are one block.
    const int64_t block = local < site.local_block ? 0 : local / site.local_block;
    left_ = site.local_block - (local - block * site.local_block);
    global_ = site.global_begin + block * site.global_block + local - block * site.local_block;
    draw();
  }
  __device__ uint32_t next() {
    const int place = static_cast<int>(global_ % 8);
    const uint32_t upper =
        place & 4 ? (place & 2 ? words_.w : words_.z) : (place & 2 ? words_.y : words_.x);
    const uint32_t bits = place & 1 ? upper >> 16 : upper & 0xffffu;
    ++global_;
    if (--left_ == 0) {
      global_ += site_.global_block - site_.local_block;
      left_ = site_.local_block;
      draw();
    } else if (place == 7) {
      draw();
    }
    return bits;
  }

 private:
  __device__ void draw() {
    const uint64_t group = static_cast<uint64_t>(global_) / 8;
    words_ = philox_rounds(
        make_uint4(static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), update_, 0),
        site_.key[0], site_.key[1]);
  }
  const Rounding& site_;
  uint32_t update_;
  int64_t global_;
  int64_t left_;  // elements of the block from here on
  uint4 words_;
};

/// Infinity and NaN stay.
__device__ Bf16 round_stochastically(float value, uint32_t random) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return __float2bfloat16_rn(value);
  return __ushort_as_bfloat16(static_cast<unsigned short>((bits + random) >> 16));
}

struct Elements {
  float g[kPack], p[kPack], m[kPack], v[kPack];
};

__device__ void step(Elements& e, const AdamWConstants& c) {
#pragma unroll
  for (int j = 0; j < kPack; ++j) {
    const float g = e.g[j] * c.gradient_scale;
    const float decayed = e.p[j] - c.decay * e.p[j];
    e.m[j] = e.m[j] + c.one_minus_beta1 * (g - e.m[j]);
    e.v[j] = c.beta2 * e.v[j] + c.one_minus_beta2 * g * g;
    e.p[j] = decayed - c.step_size * e.m[j] / (sqrtf(e.v[j]) * c.inverse_correction2 + c.eps);
  }
}

template <typename Master, typename Moment>
struct Arrays {
  Master* master;
  Moment* exp_avg;
  Moment* exp_avg_sq;
  const float* gradient;
  Bf16* weights;  // or null

  __device__ Arrays(const Range& range, int64_t begin)
      : master(in_global_memory(static_cast<Master*>(range.master)) + begin),
        exp_avg(in_global_memory(static_cast<Moment*>(range.exp_avg)) + begin),
        exp_avg_sq(in_global_memory(static_cast<Moment*>(range.exp_avg_sq)) + begin),
        gradient(in_global_memory(range.gradient) + begin),
        weights(range.weights == nullptr
                    ? nullptr
                    : in_global_memory(static_cast<Bf16*>(range.weights)) + begin) {}
  __device__ bool in_packs() const {
    return packs_begin_at(master) && packs_begin_at(exp_avg) && packs_begin_at(exp_avg_sq) &&
           packs_begin_at(gradient) && packs_begin_at(weights);
  }
};

/// kWhole: the chunk has all its elements, all in packs, and no load waits for another.
template <bool kWhole, typename Master, typename Moment>
__device__ void update_chunk(const Arrays<Master, Moment>& arrays, const Chunk& chunk,
                             const Range& range, const AdamWConstants& c, const float* updates) {
  const bool packs = kWhole || arrays.in_packs();
  Elements elements[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
    const int count = kWhole ? static_cast<int>(kPack) : chunk.count - at;
    load_four(arrays.gradient + at, count, packs, elements[k].g);
    load_four(arrays.master + at, count, packs, elements[k].p);
    load_four(arrays.exp_avg + at, count, packs, elements[k].m);
    load_four(arrays.exp_avg_sq + at, count, packs, elements[k].v);
  }
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
    const int count = kWhole ? static_cast<int>(kPack) : chunk.count - at;
    if (count <= 0) return;
    step(elements[k], c);
    store_four(arrays.exp_avg + at, count, packs, narrow_four<Moment>(elements[k].m));
    store_four(arrays.exp_avg_sq + at, count, packs, narrow_four<Moment>(elements[k].v));
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

template <typename Master, typename Moment>
__global__ void __launch_bounds__(kThreads) update_kernel(Update args) {
  const Chunk chunk = args.chunks[blockIdx.x];
  if (!*args.finite) return;
  const Range& range = args.ranges[chunk.tensor];
  const AdamWConstants constants = args.constants[range.options];
  const Arrays<Master, Moment> arrays(range, chunk.begin);
  if (chunk.count == kChunkElements && arrays.in_packs()) {
    update_chunk<true>(arrays, chunk, range, constants, args.updates);
  } else {
    update_chunk<false>(arrays, chunk, range, constants, args.updates);
  }
}

template <typename Master>
void launch(const Update& args, Stream stream) {
  const auto blocks = static_cast<unsigned>(args.chunk_count);
  if (args.moments == Element::fp32) {
    update_kernel<Master, float><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  } else {
    update_kernel<Master, Bf16><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  }
}

}  // namespace

void begin(const Begin& args, Stream stream) {
  begin_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
}

void update(const Update& args, Stream stream) {
  if (args.chunk_count == 0) return;
  if (args.master == Element::fp32) {
    launch<float>(args, stream);
  } else {
    launch<Bf16>(args, stream);
  }
}

}  // namespace tptrain::optim::cuda
