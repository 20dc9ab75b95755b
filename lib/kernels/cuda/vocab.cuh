// What the two forms of cross entropy share (vocab.cu, vocab_once.cu): what a thread of a row's
// kRowThreads meets and in which order the threads' sums join, and the one expression of an element
// of the gradient: both forms have the same bits.
#pragma once

#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

inline constexpr int64_t kIgnored = -100;
inline constexpr int kRowThreads = 512;

__device__ inline bool lies_here(int64_t target, const Vocab& args) {
  const int64_t column = target - args.vocab_begin;
  return target != kIgnored && column >= 0 && column < args.vocab;
}

/// Sum of e^(x - largest) over what was met, relative to the largest of it.
struct OnlineSum {
  float largest;
  float sum;
};
__device__ inline OnlineSum nothing_met() { return {-INFINITY, 0.0f}; }

// Relative to a row of nothing but -inf, differences would be NaN; its terms are zeros instead.
__device__ inline float base_of(float largest) { return largest == -INFINITY ? 0.0f : largest; }

/// e^x as a term of a sum that is one at least: what is less than a normal number may be zero,
/// which no bit of such a sum shows, and spares bf16's exponential three of its five instructions.
template <typename T>
__device__ inline float term(float x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return expf(x);
  } else {
    constexpr float kLog2OfE = 1.4426950408889634f;
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * kLog2OfE));
    return power;
  }
}

template <typename T>
__device__ OnlineSum joined(const OnlineSum& a, const OnlineSum& b) {
  const float largest = fmaxf(a.largest, b.largest);
  const float base = base_of(largest);
  return {largest, a.sum * term<T>(a.largest - base) + b.sum * term<T>(b.largest - base)};
}

/// One pack after the other. The exponentials of all of them are made before the first is added, so
/// that they do not wait for one another.
template <typename T, int kWidth, int kPacks>
__device__ void meet(OnlineSum& sum, const Pack<T, kWidth> (&packs)[kPacks]) {
  float x[kPacks][kWidth];
  float largest[kPacks];  // up to and with that pack
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    widen(packs[p], x[p]);
    float of_pack[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) of_pack[j] = x[p][j];
#pragma unroll
    for (int half = kWidth / 2; half > 0; half /= 2) {
#pragma unroll
      for (int j = 0; j < half; ++j) of_pack[j] = fmaxf(of_pack[j], of_pack[j + half]);
    }
    // Passes over NaN, which the sum then holds.
    largest[p] = fmaxf(p == 0 ? sum.largest : largest[p - 1], of_pack[0]);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const float base = base_of(largest[p]);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) x[p][j] = term<T>(x[p][j] - base);
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (largest[p] > sum.largest) {
      sum.sum *= term<T>(sum.largest - base_of(largest[p]));
      sum.largest = largest[p];
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum.sum += x[p][j];
  }
}
/// Of one row's thread: the element that no load of 16 bytes has taken along.
template <typename T>
__device__ void meet_last(OnlineSum& sum, const Pack<T, 1>& last) {
  const Pack<T, 1> packs[1] = {last};
  meet<T, 1, 1>(sum, packs);
}

/// Over the first kLanes of a warp; lane 0's counts.
template <typename T, int kLanes>
__device__ OnlineSum joined_lanes(OnlineSum own) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset >>= 1) {
    OnlineSum other;
    other.largest = __shfl_down_sync(~0u, own.largest, offset);
    other.sum = __shfl_down_sync(~0u, own.sum, offset);
    own = joined<T>(own, other);
  }
  return own;
}
inline constexpr int kRowWarps = kRowThreads / 32;
/// Of one warp, from what every warp of the row met.
template <typename T>
__device__ OnlineSum joined_warps(const OnlineSum* warps) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return joined_lanes<T, kRowWarps>(lane < kRowWarps ? warps[lane] : nothing_met());
}

// A row with NaN, or with +inf, must not look like a good one to the maximum over the slices.
__device__ inline float row_max_of(const OnlineSum& row) {
  return isnan(row.sum) ? NAN : row.largest;
}

/// From the row as it was.
template <typename T>
__device__ float target_logit(const Vocab& args, const T* row, int64_t token) {
  const int64_t target = args.targets[token];
  return lies_here(target, args) ? wide(row[target - args.vocab_begin]) : NAN;
}
/// By one thread. `logit`: of target_logit.
__device__ inline void store_statistics(const Vocab& args, int64_t token, const OnlineSum& row,
                                        float logit) {
  const float largest = row_max_of(row);
  args.row_max[token] = largest;
  args.sums[token] = row.sum;
  args.sums[args.tokens + token] = lies_here(args.targets[token], args) ? logit - largest : 0.0f;
}

/// What every element of a row's gradient takes.
struct RowGradient {
  float largest;
  float factor;
  float scale;
  int column;  // of the target; -1: in another slice
  // Exponentials that are no normal numbers may be zero: in bf16 each element comes out the same.
  bool quick;

  __device__ RowGradient(const Vocab& args, int64_t target, float row_max, float sum)
      : largest(row_max), factor(*args.scale / sum), scale(*args.scale) {
    if (args.z_loss != 0.0f) factor *= 1.0f + 2.0f * args.z_loss * (largest + logf(sum));
    column = lies_here(target, args) ? static_cast<int>(target - args.vocab_begin) : -1;
    // 2^-126 by this factor is at most half of bf16's least, 2^-133, and nothing beside the scale.
    quick = fabsf(factor) <= 0x1p-8f && fabsf(scale) >= 0x1p-100f;
  }
};

/// Of one element, but for what the target takes. kQuick: where `of` says so.
template <typename T, bool kQuick>
__device__ float gradient_of(const RowGradient& of, float logit) {
  const float from_largest = logit - of.largest;
  return __fmul_rn(kQuick ? term<T>(from_largest) : exponential<T>(from_largest), of.factor);
}
template <typename T, int kWidth, bool kQuick>
__device__ void store_gradient(const RowGradient& of, const Pack<T, kWidth>& logits, T* to) {
  float x[kWidth];
  widen(logits, x);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) x[j] = gradient_of<T, kQuick>(of, x[j]);
  store<T, kWidth>(to, x);
}

/// The target's element, by the thread that stores the others around it, after them: no other
/// element is asked whether it is the one.
template <typename T, int kWidth>
class AtTarget {
 public:
  /// From the row as it was. `thread` of kRowThreads, which take packs in turns and then elements.
  __device__ AtTarget(const RowGradient& of, const T* row, int vocab, int thread)
      : own_(of.column >= 0 && owner_of(of.column, vocab) == thread),
        logit_(own_ ? row[of.column] : narrow<T>(0.0f)) {}
  template <bool kQuick>
  __device__ void store(const RowGradient& of, T* row) const {
    if (own_)
      row[of.column] = narrow<T>(__fsub_rn(gradient_of<T, kQuick>(of, wide(logit_)), of.scale));
  }

 private:
  __device__ static int owner_of(int column, int vocab) {
    const int whole = vocab / kWidth * kWidth;
    return column < whole ? column / kWidth % kRowThreads : column - whole;
  }
  bool own_;
  T logit_;
};

/// run(kQuick of store_gradient, as a constant).
template <typename T, typename Run>
__device__ void with_quick(const RowGradient& of, const Run& run) {
  if constexpr (sizeof(T) == sizeof(float)) {
    run(std::false_type{});  // expf either way
  } else if (of.quick) {
    run(std::true_type{});
  } else {
    run(std::false_type{});
  }
}

/// launch(T{}, width) where rows begin at 16 bytes, wherever they end.
template <typename Launch>
void with_rows(const Vocab& args, const Launch& launch) {
  if (args.tokens == 0) return;
  with_packs(
      args.element,
      [&](auto element) { return moves_in_packs<decltype(element)>(args.stride, args.logits); },
      launch);
}

}  // namespace tptrain::kernels::cuda
