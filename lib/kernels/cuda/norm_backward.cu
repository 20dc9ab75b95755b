// RMSNorm and LayerNorm, backward: a block walks rows that come ahead of it into shared memory, and
// keeps its share of the weights' gradients in registers (and of LayerNorm of its result's columns:
// where there are LayerNorms there are biases, whose gradients these are); a second launch adds the
// shares up in order.
#include <algorithm>

#include "kernels/cuda/norm_forms.cuh"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kMostResident = 8;  // of backward's blocks, on a multiprocessor

/// How many of backward's blocks a multiprocessor has room for.
template <typename F>
struct Residence {
  // A row of each group of threads, and the next one meanwhile, lie in shared memory: registers are
  // left to the sums.
  static constexpr int kRowsAhead = 2;
  static constexpr int kTensors = 3;  // x, its output's gradient and the stream's
  static constexpr int kSharedBytes = kRowsAhead * kTensors * F::kPacks * F::kBlock * 16;
  static constexpr int kSums = F::kPacks * F::kWidth * (F::kLayer ? 3 : 1);  // a thread
  static constexpr int kThreadsAtOnce = kSums > 72                      ? 384
                                        : F::kLanes == 32 || kSums > 24 ? 512
                                                                        : 1024;
  static constexpr int kMultiprocessorBytes = 218 * 1024;  // of 228: each block takes 1 KiB more
  static constexpr int kBlocks =
      std::min({kThreadsAtOnce / F::kBlock, kMultiprocessorBytes / kSharedBytes, kMostResident});
};

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

// Long: one pass over the rows; what it holds in registers and shared memory, every part of it
// uses.
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
  float output_sums[F::kLayer ? kColumns : 1] = {};
  const T* weight = static_cast<const T*>(args.weight);  // from the cache: sums have the registers
  const auto* grad_sum = static_cast<const T*>(args.grad_sum);
  extern __shared__ __align__(128) uint4 memory[];
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
      float x[F::kWidth], grad[F::kWidth], w[F::kWidth];
      widen(rows.pack(turn, Rows::x, p), x);
      widen(rows.pack(turn, Rows::grad, p), grad);
      load<T, F::kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float normed = (x[j] - mean) * inverse;
        const float scaled = grad[j] * w[j];
        weight_sums[p * F::kWidth + j] += grad[j] * normed;
        if (F::kLayer) bias_sums[p * F::kWidth + j] += grad[j];
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
      float x[F::kWidth], grad[F::kWidth], g[F::kWidth], w[F::kWidth];
      widen(rows.pack(turn, Rows::x, p), x);
      widen(rows.pack(turn, Rows::grad, p), grad);
      load<T, F::kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float normed = (x[j] - mean) * inverse;
        const float scaled = grad[j] * w[j];
        g[j] = inverse * (scaled - mean_plain - normed * mean_dot);
      }
      if (grad_sum != nullptr) {
        float extra[F::kWidth];
        widen(rows.pack(turn, Rows::extra, p), extra);
#pragma unroll
        for (int j = 0; j < F::kWidth; ++j) g[j] += extra[j];
      }
      store<T, F::kWidth>(out + i, g);
      if (F::kLayer) {
#pragma unroll
        for (int j = 0; j < F::kWidth; ++j) output_sums[p * F::kWidth + j] += g[j];
      }
    }
  }
  // The block's rows join in the order of its groups, 16 bytes at a time: a thread's sums are
  // neighbours, and one by one their stores would be as many as the rows' own.
  constexpr int kMost = kColumns * F::kLanes;
  constexpr int kSums = F::kLayer ? 3 : 1;
  __shared__ alignas(16) float joined[F::kRows > 1 ? kSums * kMost : 1];
  float* partial = args.partial + int64_t{blockIdx.x} * kSums * hidden;
  for (int turn_of = 0; turn_of < F::kRows; ++turn_of) {
    if (group == turn_of) {
#pragma unroll
      for (int p = 0; p < F::kPacks; ++p) {
        const int i = (p * F::kLanes + lane) * F::kWidth;
        if (i >= hidden) break;
#pragma unroll
        for (int of = 0; of < kSums; ++of) {
          float sums[F::kWidth];
#pragma unroll
          for (int j = 0; j < F::kWidth; ++j) {
            const int own = p * F::kWidth + j;
            sums[j] = of == 0 ? weight_sums[own] : of == 1 ? bias_sums[own] : output_sums[own];
          }
          if (F::kRows > 1 && turn_of > 0) {
            float before[F::kWidth];
            load_floats(joined + of * kMost + i, before);
#pragma unroll
            for (int j = 0; j < F::kWidth; ++j) sums[j] += before[j];
          }
          if (turn_of + 1 == F::kRows) {
            store_floats(partial + of * hidden + i, sums);
          } else {
#pragma unroll
            for (int j = 0; j < F::kWidth; j += 4)
              *reinterpret_cast<float4*>(joined + of * kMost + i + j) =
                  make_float4(sums[j], sums[j + 1], sums[j + 2], sums[j + 3]);
          }
        }
      }
    }
    if (F::kRows > 1) __syncthreads();
  }
}

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

int64_t norm_backward_blocks(int64_t rows) { return most_blocks(rows, kMostResident); }

bool norm_backward(const NormBackward& args, Stream stream) {
  if (args.rows == 0) return false;
  const auto on = static_cast<cudaStream_t>(stream);
  const bool layer = args.mean != nullptr;
  int64_t blocks = norm_backward_blocks(args.rows);
  int64_t sums = layer ? 2 : 1;  // a row of the partial ones
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
        if (layer) sums = 3;
      },
      [&](Loads loads) { long_norm_backward(args, loads, blocks, stream); });
  add_partials({.partial = args.partial,
                .blocks = blocks,
                .stride = sums * args.hidden,
                .columns = args.hidden,
                .first = args.weight_grad,
                .second = layer ? args.bias_grad : nullptr,
                .third = sums == 3 ? args.column_sums : nullptr},
               stream);
  return sums == 3;
}

}  // namespace tptrain::kernels::cuda
