// RMSNorm and LayerNorm. Forward, a row lies in the registers of a warp (up to 1,024 elements) or
// of a block (up to 8,192): each tensor is read once and written once. Backward, a block walks rows
// that come ahead of it into shared memory, and keeps its share of the weights' gradients in
// registers; a second launch adds the shares up in order. Rows that are longer, or do not move in
// loads of 16 bytes, take the kernels of norm_long.cu, which read them again from the cache.
//
// Which form a call takes depends on the row's size and alignment, never on the number of rows:
// equal rows get equal bits wherever they lie.
#include <algorithm>

#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kMostResident = 8;  // of backward's blocks, on a multiprocessor

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

/// How many of backward's blocks a multiprocessor has room for.
template <typename F>
struct Residence {
  // A row of each group of threads, and the next one meanwhile, lie in shared memory: registers are
  // left to the sums.
  static constexpr int kRowsAhead = 2;
  static constexpr int kTensors = 3;  // x, its output's gradient and the stream's
  static constexpr int kSharedBytes = kRowsAhead * kTensors * F::kPacks * F::kBlock * 16;
  static constexpr int kSums = F::kPacks * F::kWidth * (F::kLayer ? 2 : 1);  // a thread
  static constexpr int kThreadsAtOnce = F::kLanes == 32 || kSums > 16 ? 512 : 1024;
  static constexpr int kMultiprocessorBytes = 218 * 1024;  // of 228: each block takes 1 KiB more
  static constexpr int kBlocks =
      std::min({kThreadsAtOnce / F::kBlock, kMultiprocessorBytes / kSharedBytes, kMostResident});
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

/// Rows of three tensors on their way to shared memory, two at a time. A thread reads what it has
/// sent for itself and nothing else, so that none waits for another.
template <typename F>
class RowsAhead {
 public:
  enum Of { x, grad, extra };
  __device__ explicit RowsAhead(uint4* memory) : own_(memory + threadIdx.x) {}

  /// This thread's elements of a row (load_row). `from` null: nothing.
  __device__ void send_for(int turn, Of of, const typename F::T* from, int lane, int hidden) {
    if (from == nullptr) return;
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
      if (i >= hidden) break;
      const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(word(turn, of, p)));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from + i) : "memory");
    }
  }
  /// What was sent for since the last call is one row.
  __device__ void end_row() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  /// All rows but the last one that was ended are here.
  __device__ void wait() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
  __device__ Pack<typename F::T, F::kWidth> pack(int turn, Of of, int p) const {
    return *reinterpret_cast<const Pack<typename F::T, F::kWidth>*>(word(turn, of, p));
  }

 private:
  __device__ uint4* word(int turn, Of of, int p) const {
    return own_ + ((turn * Residence<F>::kTensors + of) * F::kPacks + p) * F::kBlock;
  }
  uint4* own_;
};

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
__global__ void __launch_bounds__(F::kBlock, Residence<F>::kBlocks)
    backward_kernel(NormBackward args) {
  using T = typename F::T;
  using Rows = RowsAhead<F>;
  constexpr int kColumns = F::kPacks * F::kWidth;
  const int lane = threadIdx.x % F::kLanes;
  const int group = threadIdx.x / F::kLanes;
  const int hidden = static_cast<int>(args.hidden);
  const float count = static_cast<float>(hidden);
  const int64_t step = int64_t{gridDim.x} * F::kRows;
  float weight_sums[kColumns] = {};
  float bias_sums[F::kLayer ? kColumns : 1] = {};
  const T* weight = static_cast<const T*>(args.weight);  // from the cache: sums have the registers
  const auto* grad_sum = static_cast<const T*>(args.grad_sum);
  extern __shared__ uint4 memory[];
  Rows rows(memory);
  float next_inverse = 0;
  float next_mean = 0;
  const auto send_for = [&](int turn, int64_t row) {
    if (row < args.rows) {
      const int64_t at = row * hidden;
      rows.send_for(turn, Rows::x, static_cast<const T*>(args.x) + at, lane, hidden);
      rows.send_for(turn, Rows::grad, static_cast<const T*>(args.grad_output) + at, lane, hidden);
      rows.send_for(turn, Rows::extra, grad_sum == nullptr ? nullptr : grad_sum + at, lane, hidden);
      next_inverse = args.inverse[row];
      if (F::kLayer) next_mean = args.mean[row];
    }
    rows.end_row();
  };
  int64_t row = int64_t{blockIdx.x} * F::kRows + group;
  send_for(0, row);
  for (int turn = 0; row < args.rows; row += step, turn ^= 1) {
    const float inverse = next_inverse;
    const float mean = next_mean;
    send_for(turn ^ 1, row + step);
    rows.wait();
    float dot = 0;    // of the gradient by the normed row, with the normed row
    float plain = 0;  // its sum
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
      if (i >= hidden) break;
      const auto x = rows.pack(turn, Rows::x, p);
      const auto grad = rows.pack(turn, Rows::grad, p);
      float w[F::kWidth];
      load<T, F::kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float normed = (wide(x.values[j]) - mean) * inverse;
        const float g = wide(grad.values[j]);
        const float scaled = g * w[j];
        weight_sums[p * F::kWidth + j] += g * normed;
        if (F::kLayer) bias_sums[p * F::kWidth + j] += g;
        dot += scaled * normed;
        plain += scaled;
      }
    }
    const float2 sums = row_sums<F>(dot, F::kLayer ? plain : 0.0f, turn);
    const float mean_dot = sums.x / count;
    const float mean_plain = sums.y / count;
    T* out = static_cast<T*>(args.grad_x) + row * hidden;
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
      if (i >= hidden) break;
      const auto x = rows.pack(turn, Rows::x, p);
      const auto grad = rows.pack(turn, Rows::grad, p);
      float g[F::kWidth], w[F::kWidth];
      load<T, F::kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float normed = (wide(x.values[j]) - mean) * inverse;
        const float scaled = wide(grad.values[j]) * w[j];
        g[j] = inverse * (scaled - mean_plain - normed * mean_dot);
      }
      if (grad_sum != nullptr) {
        const auto extra = rows.pack(turn, Rows::extra, p);
#pragma unroll
        for (int j = 0; j < F::kWidth; ++j) g[j] += wide(extra.values[j]);
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
// Of RMSNorm small blocks instead of warps: a thread has fewer sums, and a multiprocessor room for
// more of them. LayerNorm, with twice the arithmetic, loses more by waiting for a block.
struct BackwardForms {
  template <typename T, int kWidth, bool kLayer, typename Launch>
  static void with(int64_t hidden, const Launch& launch) {
    if constexpr (kLayer) {
      ForwardForms::with<T, kWidth, kLayer>(hidden, launch);
    } else {
      constexpr int kPacks = 8 / kWidth;  // 1 of bf16, 2 of fp32
      if (hidden <= 64 * 8) return launch(Form<T, kWidth, kPacks, 64, kLayer>{});
      if (hidden <= 96 * 8) return launch(Form<T, kWidth, kPacks, 96, kLayer>{});
      if (hidden <= 128 * 8) return launch(Form<T, kWidth, kPacks, 128, kLayer>{});
      with_block_form<T, kWidth, kLayer>(hidden, launch);
    }
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

template <typename F>
unsigned blocks_of(int64_t rows) {
  return static_cast<unsigned>((rows + F::kRows - 1) / F::kRows);
}

/// Blocks that all run at once on the device: rows are dealt out once. A block has a few rows at
/// least, else its sums would be as large as what it reads.
int64_t most_blocks(int64_t rows, int resident) {
  return std::min<int64_t>((rows + 3) / 4, int64_t{multiprocessors()} * resident);
}
/// Of so many bytes of shared memory each, which the compiled bound is for 228 KiB of.
int resident_blocks(int compiled, int bytes) {
  constexpr int kOfABlock = 1024;  // that the device takes for itself
  return std::clamp(shared_bytes_of_multiprocessor() / (bytes + kOfABlock), 1, compiled);
}

}  // namespace

void norm_forward(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  with_form<ForwardForms>(
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
  with_form<ForwardForms>(
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

int64_t norm_backward_blocks(int64_t rows) { return most_blocks(rows, kMostResident); }

void norm_backward(const NormBackward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const bool layer = args.mean != nullptr;
  int64_t blocks = norm_backward_blocks(args.rows);
  with_form<BackwardForms>(
      args.element, layer, args.hidden,
      [&](auto element) {
        return moves_in_packs<decltype(element)>(args.hidden, args.grad_output, args.grad_sum,
                                                 args.x, args.weight, args.grad_x);
      },
      [&](auto form) {
        using F = decltype(form);
        using R = Residence<F>;
        // Ada and consumer Blackwell have 99 KiB: rows beyond that are read again instead.
        if (R::kSharedBytes > shared_bytes_of_block())
          return long_norm_backward(args, F::kWidth > 1 ? Loads::packs : Loads::elements, blocks,
                                    stream);
        // More than 48 KiB are asked for by name, once a kernel; a refusal shows in the launch.
        static const cudaError_t allowed = cudaFuncSetAttribute(
            backward_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, R::kSharedBytes);
        static_cast<void>(allowed);
        blocks = most_blocks(args.rows, resident_blocks(R::kBlocks, R::kSharedBytes));
        backward_kernel<F><<<static_cast<unsigned>(blocks), F::kBlock, R::kSharedBytes, on>>>(args);
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
