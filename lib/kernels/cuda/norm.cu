// RMSNorm and LayerNorm. A row lies in the registers of a warp (up to 1,024 elements) or of a block
// (up to 8,192): each tensor is read once and written once. Backward keeps its share of the
// weights' gradients in registers while a few hundred blocks walk the rows; a second launch adds
// the shares up in order. Rows that are longer, or do not move in loads of 16 bytes, take the
// kernels of norm_long.cu, which read them again from the cache.
//
// Which form a call takes depends on the row's size and alignment, never on the number of rows:
// equal rows get equal bits wherever they lie.
#include <algorithm>

#include "kernels/cuda/norm.cuh"

namespace tptrain::kernels::cuda {

namespace {

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
  // Backward: blocks that a multiprocessor holds at once. Sums (twice with LayerNorm) and rows need
  // their registers; what is left of the number of blocks still keeps some 50 KiB of loads in
  // flight.
  static constexpr int kElements = packs * width;  // a thread
  static constexpr int kResident =
      lanes == 32 ? (kElements > 24 ? 3 : 4) - (layer && kElements > 16 ? 1 : 0)
                  : (kElements > 16  ? 1
                     : kElements > 8 ? (layer ? 2 : 3)
                                     : 4);
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

/// What follows converts the elements to fp32 anew. Without it the compiler keeps the fp32 of the
/// first pass over a row for the second, in twice to four times the registers, and spills.
template <typename F>
__device__ void forget_conversions(typename F::Packs& packs) {
#pragma unroll
  for (int p = 0; p < F::kPacks; ++p) {
    auto* words = reinterpret_cast<uint32_t*>(&packs[p]);
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(words[i]));
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

template <typename F>
__device__ void store_output(const NormForward& args, const typename F::Packs& x,
                             const typename F::Packs& weight, const typename F::Packs& bias,
                             int64_t at, int lane, float mean, float inverse) {
  using T = typename F::T;
  T* output = static_cast<T*>(args.output) + at;
#pragma unroll
  for (int p = 0; p < F::kPacks; ++p) {
    const int i = (p * F::kLanes + lane) * F::kWidth;
    if (i >= static_cast<int>(args.hidden)) break;
    float y[F::kWidth];
#pragma unroll
    for (int j = 0; j < F::kWidth; ++j)
      y[j] =
          normed_output<F::kLayer>(wide(x[p].values[j]), mean, inverse, wide(weight[p].values[j]),
                                   F::kLayer ? wide(bias[p].values[j]) : 0.0f);
    store<T, F::kWidth>(output + i, y);
  }
}

template <typename F>
__global__ void __launch_bounds__(F::kBlock) forward_kernel(NormForward args) {
  using T = typename F::T;
  const int lane = threadIdx.x % F::kLanes;
  const int hidden = static_cast<int>(args.hidden);
  const int64_t row = int64_t{blockIdx.x} * F::kRows + threadIdx.x / F::kLanes;
  if (row >= args.rows) return;  // a warp with its row: none waits for another
  const int64_t at = row * hidden;
  typename F::Packs x, weight, bias;
  load_row<F>(static_cast<const T*>(args.x) + at, lane, hidden, x);
  if (args.delta != nullptr) {
    typename F::Packs delta;
    load_row<F>(static_cast<const T*>(args.delta) + at, lane, hidden, delta);
    T* sum = static_cast<T*>(args.sum) + at;
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j)
        x[p].values[j] = narrow<T>(wide(x[p].values[j]) + wide(delta[p].values[j]));
      if (i < hidden) store_pack(sum + i, x[p]);
    }
  }
  load_row<F>(static_cast<const T*>(args.weight), lane, hidden, weight);
  if (F::kLayer) load_row<F>(static_cast<const T*>(args.bias), lane, hidden, bias);
  float total = 0;
  float squares = 0;
#pragma unroll
  for (int p = 0; p < F::kPacks; ++p) {
#pragma unroll
    for (int j = 0; j < F::kWidth; ++j) {
      const float value = wide(x[p].values[j]);
      total += value;
      squares += value * value;
    }
  }
  const float count = static_cast<float>(hidden);
  float mean = 0;
  if (F::kLayer) {
    mean = row_sums<F>(total, 0.0f, 0).x / count;
    squares = 0;  // about the mean: a difference of large squares would lose the variance
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      if ((p * F::kLanes + lane) * F::kWidth >= hidden) break;
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float difference = wide(x[p].values[j]) - mean;
        squares += difference * difference;
      }
    }
  }
  const float inverse = 1.0f / sqrtf(row_sums<F>(squares, 0.0f, 1).x / count + args.eps);
  if (lane == 0) {
    args.inverse[row] = inverse;
    if (F::kLayer) args.mean[row] = mean;
  }
  store_output<F>(args, x, weight, bias, at, lane, mean, inverse);
}

template <typename F>
__global__ void __launch_bounds__(F::kBlock) again_kernel(NormForward args) {
  using T = typename F::T;
  const int lane = threadIdx.x % F::kLanes;
  const int hidden = static_cast<int>(args.hidden);
  const int64_t row = int64_t{blockIdx.x} * F::kRows + threadIdx.x / F::kLanes;
  if (row >= args.rows) return;
  const int64_t at = row * hidden;
  typename F::Packs x, weight, bias;
  load_row<F>(static_cast<const T*>(args.x) + at, lane, hidden, x);
  load_row<F>(static_cast<const T*>(args.weight), lane, hidden, weight);
  if (F::kLayer) load_row<F>(static_cast<const T*>(args.bias), lane, hidden, bias);
  store_output<F>(args, x, weight, bias, at, lane, F::kLayer ? args.mean[row] : 0.0f,
                  args.inverse[row]);
}

template <typename F>
__global__ void __launch_bounds__(F::kBlock, F::kResident) backward_kernel(NormBackward args) {
  using T = typename F::T;
  constexpr int kColumns = F::kPacks * F::kWidth;
  const int lane = threadIdx.x % F::kLanes;
  const int group = threadIdx.x / F::kLanes;
  const int hidden = static_cast<int>(args.hidden);
  const float count = static_cast<float>(hidden);
  float weight_sums[kColumns] = {};
  float bias_sums[F::kLayer ? kColumns : 1] = {};
  const T* weight = static_cast<const T*>(args.weight);  // from the cache: sums have the registers
  int turn = 0;
  for (int64_t row = int64_t{blockIdx.x} * F::kRows + group; row < args.rows;
       row += int64_t{gridDim.x} * F::kRows) {
    const int64_t at = row * hidden;
    typename F::Packs x, grad, extra;
    load_row<F>(static_cast<const T*>(args.x) + at, lane, hidden, x);
    load_row<F>(static_cast<const T*>(args.grad_output) + at, lane, hidden, grad);
    if (args.grad_sum != nullptr)
      load_row<F>(static_cast<const T*>(args.grad_sum) + at, lane, hidden, extra);
    const float inverse = args.inverse[row];
    const float mean = F::kLayer ? args.mean[row] : 0.0f;
    float dot = 0;    // of the gradient by the normed row, with the normed row
    float plain = 0;  // its sum
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
      if (i >= hidden) break;
      float w[F::kWidth];
      load<T, F::kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float normed = (wide(x[p].values[j]) - mean) * inverse;
        const float g = wide(grad[p].values[j]);
        const float scaled = g * w[j];
        weight_sums[p * F::kWidth + j] += g * normed;
        if (F::kLayer) bias_sums[p * F::kWidth + j] += g;
        dot += scaled * normed;
        plain += scaled;
      }
    }
    forget_conversions<F>(x);
    forget_conversions<F>(grad);
    const float2 sums = row_sums<F>(dot, F::kLayer ? plain : 0.0f, turn);
    turn ^= 1;
    const float mean_dot = sums.x / count;
    const float mean_plain = sums.y / count;
    T* out = static_cast<T*>(args.grad_x) + at;
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
      if (i >= hidden) break;
      float g[F::kWidth], w[F::kWidth];
      load<T, F::kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float normed = (wide(x[p].values[j]) - mean) * inverse;
        const float scaled = wide(grad[p].values[j]) * w[j];
        g[j] = inverse * (scaled - mean_plain - normed * mean_dot);
        if (args.grad_sum != nullptr) g[j] += wide(extra[p].values[j]);
      }
      store<T, F::kWidth>(out + i, g);
    }
  }
  // The block's rows join in the order of its groups.
  constexpr int kMost = kColumns * F::kLanes;
  __shared__ float joined[F::kRows > 1 ? (F::kLayer ? 2 : 1) * kMost : 1];
  float* partial = args.partial + int64_t{blockIdx.x} * (F::kLayer ? 2 : 1) * hidden;
  for (int turn_of = 0; turn_of < F::kRows; ++turn_of) {
    if (group == turn_of) {
#pragma unroll
      for (int p = 0; p < F::kPacks; ++p) {
        const int i = (p * F::kLanes + lane) * F::kWidth;
        if (i >= hidden) break;
#pragma unroll
        for (int j = 0; j < F::kWidth; ++j) {
          float weight_sum = weight_sums[p * F::kWidth + j];
          float bias_sum = F::kLayer ? bias_sums[p * F::kWidth + j] : 0.0f;
          if (F::kRows > 1 && turn_of > 0) {
            weight_sum += joined[i + j];
            if (F::kLayer) bias_sum += joined[kMost + i + j];
          }
          if (turn_of + 1 == F::kRows) {
            partial[i + j] = weight_sum;
            if (F::kLayer) partial[hidden + i + j] = bias_sum;
          } else {
            joined[i + j] = weight_sum;
            if (F::kLayer) joined[kMost + i + j] = bias_sum;
          }
        }
      }
    }
    if (F::kRows > 1) __syncthreads();
  }
}

// --- Which form a call takes.

constexpr int kBlockLanes = 256;
constexpr int64_t kMostInWarp = 1024;
constexpr int64_t kMostInBlock = 8192;

/// launch(Form{}) of the smallest form that holds a row of `hidden` elements, kMostInBlock at most.
template <typename T, int kWidth, bool kLayer, typename Launch>
void with_row_form(int64_t hidden, const Launch& launch) {
  const int64_t packs = (hidden + kWidth - 1) / kWidth;
  constexpr int kWarp = kMostInWarp / 32 / kWidth;             // 4 of bf16, 8 of fp32
  constexpr int kBlock = kMostInBlock / kBlockLanes / kWidth;  // likewise
  if (packs <= 32 * kWarp / 2) return launch(Form<T, kWidth, kWarp / 2, 32, kLayer>{});
  if (packs <= 32 * kWarp * 3 / 4) return launch(Form<T, kWidth, kWarp * 3 / 4, 32, kLayer>{});
  if (packs <= 32 * kWarp) return launch(Form<T, kWidth, kWarp, 32, kLayer>{});
  if (packs <= kBlockLanes * kBlock / 4)
    return launch(Form<T, kWidth, kBlock / 4, kBlockLanes, kLayer>{});
  if (packs <= kBlockLanes * kBlock / 2)
    return launch(Form<T, kWidth, kBlock / 2, kBlockLanes, kLayer>{});
  launch(Form<T, kWidth, kBlock, kBlockLanes, kLayer>{});
}

template <typename T, typename InRegisters, typename Long>
void with_kind(bool layer, int64_t hidden, bool packs, const InRegisters& in_registers,
               const Long& read_again) {
  constexpr int kWidth = 16 / sizeof(T);
  if (!packs) return read_again(Loads::elements);
  if (hidden > kMostInBlock) return read_again(Loads::packs);
  if (layer) return with_row_form<T, kWidth, true>(hidden, in_registers);
  with_row_form<T, kWidth, false>(hidden, in_registers);
}

/// packs(element): whether rows of this type move in loads of 16 bytes.
template <typename Packs, typename InRegisters, typename Long>
void with_form(Element element, bool layer, int64_t hidden, const Packs& packs,
               const InRegisters& in_registers, const Long& read_again) {
  if (element == Element::bf16) {
    using T = __nv_bfloat16;
    return with_kind<T>(layer, hidden, packs(T{}), in_registers, read_again);
  }
  with_kind<float>(layer, hidden, packs(float{}), in_registers, read_again);
}

template <typename F>
unsigned blocks_of(int64_t rows) {
  return static_cast<unsigned>((rows + F::kRows - 1) / F::kRows);
}

/// Blocks that all run at once on the 132 multiprocessors of an H100 or H200: rows are dealt out
/// once. A block has a few rows at least, else its sums would be as large as what it reads.
int64_t most_blocks(int64_t rows, int resident) {
  return std::min<int64_t>((rows + 3) / 4, 132 * resident);
}

}  // namespace

void norm_forward(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  with_form(
      args.element, args.mean != nullptr, args.hidden,
      [&](auto element) {
        return moves_in_packs<decltype(element)>(args.hidden, args.x, args.delta, args.weight,
                                                 args.bias, args.sum, args.output);
      },
      [&](auto form) {
        using F = decltype(form);
        forward_kernel<F><<<blocks_of<F>(args.rows), F::kBlock, 0, on>>>(args);
      },
      [&](Loads loads) { long_norm_forward(args, loads, stream); });
}

void norm_again(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  with_form(
      args.element, args.mean != nullptr, args.hidden,
      [&](auto element) {
        return moves_in_packs<decltype(element)>(args.hidden, args.x, args.weight, args.bias,
                                                 args.output);
      },
      [&](auto form) {
        using F = decltype(form);
        again_kernel<F><<<blocks_of<F>(args.rows), F::kBlock, 0, on>>>(args);
      },
      [&](Loads loads) { long_norm_again(args, loads, stream); });
}

int64_t norm_backward_blocks(int64_t rows) { return most_blocks(rows, 4); }

void norm_backward(const NormBackward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const bool layer = args.mean != nullptr;
  int64_t blocks = norm_backward_blocks(args.rows);
  with_form(
      args.element, layer, args.hidden,
      [&](auto element) {
        return moves_in_packs<decltype(element)>(args.hidden, args.grad_output, args.grad_sum,
                                                 args.x, args.weight, args.grad_x);
      },
      [&](auto form) {
        using F = decltype(form);
        blocks = most_blocks(args.rows, F::kResident);
        backward_kernel<F><<<static_cast<unsigned>(blocks), F::kBlock, 0, on>>>(args);
      },
      [&](Loads loads) { long_norm_backward(args, loads, blocks, stream); });
  add_partials({.partial = args.partial,
                .blocks = blocks,
                .stride = (layer ? 2 : 1) * args.hidden,
                .columns = args.hidden,
                .first = args.weight_grad,
                .second = layer ? args.bias_grad : nullptr},
               stream);
}

}  // namespace tptrain::kernels::cuda
