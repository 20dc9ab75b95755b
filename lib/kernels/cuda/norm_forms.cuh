// The forms of RMSNorm and LayerNorm whose rows lie in the registers of a warp (up to 1,024
// elements) or of a block (up to 8,192), and which of them a call takes. Rows that are longer, or
// do not move in loads of 16 bytes, take the kernels of norm_long.cu, which read them again from
// the cache.
//
// Which form a call takes depends on the row's size and alignment, never on the number of rows:
// equal rows get equal bits wherever they lie.
#pragma once

#include "kernels/cuda/norm.cuh"

namespace tptrain::kernels::cuda {

// The form of one call. A row has kLanes threads: a warp's 32, or the block's.
template <typename Element, int width, int packs, int lanes, bool layer>
struct Form {
  using T = Element;
  static constexpr int kWidth = width;
  static constexpr int kPacks = packs;  // a thread
  static constexpr int kLanes = lanes;
  static constexpr bool kLayer = layer;
  static constexpr int kBlock = lanes == 32 ? 128 : lanes;
  static constexpr int kRows = kBlock / lanes;  // of a block at a time
  static constexpr int kWarps = lanes / 32;     // of a row
  using Packs = Pack<T, kWidth>[packs];
};

/// This thread's elements of a row; zeros beyond its end.
template <typename F>
__device__ void load_row(const typename F::T* row, int lane, int hidden, typename F::Packs& to) {
#pragma unroll
  for (int p = 0; p < F::kPacks; ++p) {
    const int i = (p * F::kLanes + lane) * F::kWidth;
    to[p] = i < hidden ? load_pack<typename F::T, F::kWidth>(row + i)
                       : zero_pack<typename F::T, F::kWidth>();
  }
}

/// Both sums over the threads of a row; every thread gets them. `turn` alternates between calls, so
/// that one synchronisation is enough.
template <typename F>
__device__ float2 row_sums(float a, float b, int turn) {
  float2 sums = make_float2(warp_sum(a), warp_sum(b));
  if constexpr (F::kWarps == 1) {
    return sums;
  } else {
    __shared__ float2 warps[2][F::kWarps];
    if (threadIdx.x % 32 == 0) warps[turn][threadIdx.x / 32] = sums;
    __syncthreads();
    sums = warps[turn][0];
#pragma unroll
    for (int i = 1; i < F::kWarps; ++i) {
      sums.x += warps[turn][i].x;
      sums.y += warps[turn][i].y;
    }
    return sums;
  }
}

// --- Which form a call takes.

constexpr int kBlockLanes = 256;
constexpr int64_t kMostInWarp = 1024;
constexpr int64_t kMostInBlock = 8192;

/// launch(Form{}) of the smallest form that holds a row of `hidden` elements, kMostInBlock at most.
template <typename T, int kWidth, bool kLayer, typename Launch>
void with_block_form(int64_t hidden, const Launch& launch) {
  constexpr int kBlock = kMostInBlock / kBlockLanes / kWidth;  // 4 of bf16, 8 of fp32
  const int64_t packs = (hidden + kWidth - 1) / kWidth;
  if (packs <= kBlockLanes * kBlock / 4)
    return launch(Form<T, kWidth, kBlock / 4, kBlockLanes, kLayer>{});
  if (packs <= kBlockLanes * kBlock / 2)
    return launch(Form<T, kWidth, kBlock / 2, kBlockLanes, kLayer>{});
  launch(Form<T, kWidth, kBlock, kBlockLanes, kLayer>{});
}

struct ForwardForms {
  template <typename T, int kWidth, bool kLayer, typename Launch>
  static void with(int64_t hidden, const Launch& launch) {
    constexpr int kWarp = kMostInWarp / 32 / kWidth;  // likewise
    const int64_t packs = (hidden + kWidth - 1) / kWidth;
    if (packs <= 32 * kWarp / 2) return launch(Form<T, kWidth, kWarp / 2, 32, kLayer>{});
    if (packs <= 32 * kWarp * 3 / 4) return launch(Form<T, kWidth, kWarp * 3 / 4, 32, kLayer>{});
    if (packs <= 32 * kWarp) return launch(Form<T, kWidth, kWarp, 32, kLayer>{});
    with_block_form<T, kWidth, kLayer>(hidden, launch);
  }
};

template <typename Forms, typename T, typename InRegisters, typename Long>
void with_kind(bool layer, int64_t hidden, bool packs, const InRegisters& in_registers,
               const Long& read_again) {
  constexpr int kWidth = 16 / sizeof(T);
  if (!packs) return read_again(Loads::elements);
  if (hidden > kMostInBlock) return read_again(Loads::packs);
  if (layer) return Forms::template with<T, kWidth, true>(hidden, in_registers);
  Forms::template with<T, kWidth, false>(hidden, in_registers);
}

/// packs(element): whether rows of this type move in loads of 16 bytes.
template <typename Forms, typename Packs, typename InRegisters, typename Long>
void with_form(Element element, bool layer, int64_t hidden, const Packs& packs,
               const InRegisters& in_registers, const Long& read_again) {
  if (element == Element::bf16) {
    using T = __nv_bfloat16;
    return with_kind<Forms, T>(layer, hidden, packs(T{}), in_registers, read_again);
  }
  with_kind<Forms, float>(layer, hidden, packs(float{}), in_registers, read_again);
}

}  // namespace tptrain::kernels::cuda
