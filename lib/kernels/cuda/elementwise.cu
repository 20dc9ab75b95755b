// SwiGLU, GELU, the rotary embedding and the packing of heads: one thread 16 bytes of each tensor,
// or, of heads, the same two columns of several heads, which share their angles.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/swiglu.cuh"

namespace tptrain::kernels::cuda {

namespace {

// tanh form: u = sqrt(2/pi) (x + 0.044715 x^3), and tanh(u) = 1 - 2 / (exp(2u) + 1), which does not
// overflow at either end.
template <typename T>
__device__ float gelu_tanh_of(float x) {
  const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return 1.0f - quotient<T>(2.0f, exponential<T>(2.0f * u) + 1.0f);
}

/// The larger of `most` and the bits of these values' magnitudes: NaN counts as larger than
/// infinity.
template <int kWidth>
__device__ uint32_t largest_bits(uint32_t most, const float (&values)[kWidth]) {
#pragma unroll
  for (int j = 0; j < kWidth; ++j) most = max(most, __float_as_uint(values[j]) & 0x7fffffffu);
  return most;
}
/// *amax := the larger of itself and `most` of any thread of the block, as what is stored is
/// rounded. Every thread of the block comes here.
__device__ void add_block_amax(uint32_t most, uint32_t* amax) {
  __shared__ uint32_t of_warps[kThreads / 32];
  most = __reduce_max_sync(~0u, most);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) most = max(most, of_warps[warp]);
  const uint32_t stored =
      uint32_t{__bfloat16_as_ushort(narrow<__nv_bfloat16>(__uint_as_float(most)))} << 16;
  // Few blocks find a larger one than those before them: a stale value here costs an atomic more.
  if (stored > *amax) atomicMax(amax, stored);
}

// Indices of packs are 32 bit: a division of 64 bit costs more than the rest of such a kernel.
// Larger tensors are launched in slabs of rows (in_slabs).
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    swiglu_kernel(const T* gate_up, T* output, uint32_t* amax, uint32_t packs,
                  uint32_t packs_a_row) {
  const uint32_t pack = blockIdx.x * kThreads + threadIdx.x;
  uint32_t most = 0;
  if (pack < packs) {
    const uint32_t row = pack / packs_a_row;
    // Behind the gates of this row and the ups of the rows before it.
    const T* gate_at = gate_up + (int64_t{pack} + int64_t{row} * packs_a_row) * kWidth;
    float gate[kWidth], up[kWidth];
    load<T, kWidth>(gate_at, gate);
    load<T, kWidth>(gate_at + int64_t{packs_a_row} * kWidth, up);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) gate[j] = swiglu_of<T>(gate[j], up[j]);
    store<T, kWidth>(output + int64_t{pack} * kWidth, gate);
    most = largest_bits(most, gate);
  }
  if (amax != nullptr) add_block_amax(most, amax);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_kernel(const T* grad_output, const T* gate_up, T* grad_gate_up, uint32_t* amax,
                           uint32_t packs, uint32_t packs_a_row) {
  const uint32_t pack = blockIdx.x * kThreads + threadIdx.x;
  uint32_t most = 0;
  if (pack < packs) {
    const uint32_t row = pack / packs_a_row;
    const int64_t at = (int64_t{pack} + int64_t{row} * packs_a_row) * kWidth;
    const int64_t ffn = int64_t{packs_a_row} * kWidth;
    float grad[kWidth], gate[kWidth], up[kWidth];
    load<T, kWidth>(grad_output + int64_t{pack} * kWidth, grad);
    load<T, kWidth>(gate_up + at, gate);
    load<T, kWidth>(gate_up + at + ffn, up);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) swiglu_gradient<T>(grad[j], gate[j], up[j]);
    store<T, kWidth>(grad_gate_up + at, gate);
    store<T, kWidth>(grad_gate_up + at + ffn, up);
    most = largest_bits(largest_bits(most, gate), up);
  }
  if (amax != nullptr) add_block_amax(most, amax);
}

template <typename T, int kWidth>
__global__ void gelu_kernel(const T* x, T* output, int64_t packs) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  float value[kWidth];
  load<T, kWidth>(x + pack * kWidth, value);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) value[j] = 0.5f * value[j] * (1.0f + gelu_tanh_of<T>(value[j]));
  store<T, kWidth>(output + pack * kWidth, value);
}

template <typename T, int kWidth>
__global__ void gelu_backward_kernel(const T* grad_output, const T* x, T* grad_x, int64_t packs) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  float value[kWidth], grad[kWidth];
  load<T, kWidth>(x + pack * kWidth, value);
  load<T, kWidth>(grad_output + pack * kWidth, grad);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float v = value[j];
    const float t = gelu_tanh_of<T>(v);
    const float slope = 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * v * v);
    grad[j] *= 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * slope;
  }
  store<T, kWidth>(grad_x + pack * kWidth, grad);
}

// --- Heads.

constexpr int kHeadsAThread = 4;

/// Heads from several places to one, the first `rotated` of them rotated.
struct MoveHeads {
  StridedHeads from[3];
  int heads[3] = {};   // of each
  void* to = nullptr;  // [positions, batch, width]
  int64_t width = 0;
  Rotation rotation;
  int rotated = 0;
  uint32_t batch = 0;
  int half = 0;  // of head_dim
  uint32_t threads = 0;
  uint32_t packs_a_half = 0;
  uint32_t head_groups = 0;  // of kHeadsAThread
};

template <typename T>
__device__ const T* head_of(const MoveHeads& args, int head, int64_t position, int64_t batch) {
  int part = 0;
  while (part < 2 && head >= args.heads[part]) head -= args.heads[part++];
  const StridedHeads& from = args.from[part];
  return static_cast<const T*>(from.data) + position * from.position + batch * from.batch +
         head * from.head;
}

// One thread: the columns i .. and i + D/2 .. of kHeadsAThread heads of a token. In place each
// thread reads what it writes itself.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) move_heads_kernel(MoveHeads args) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= args.threads) return;
  const uint32_t rest = thread / args.packs_a_half;
  const int i = static_cast<int>(thread - rest * args.packs_a_half) * kWidth;
  const uint32_t token = rest / args.head_groups;
  const int first_head = static_cast<int>(rest - token * args.head_groups) * kHeadsAThread;
  const uint32_t position = token / args.batch;
  const uint32_t sample = token - position * args.batch;
  const int all = args.heads[0] + args.heads[1] + args.heads[2];

  Pack<T, kWidth> a[kHeadsAThread], c[kHeadsAThread];
#pragma unroll
  for (int h = 0; h < kHeadsAThread; ++h) {
    if (first_head + h >= all) break;
    const T* from = head_of<T>(args, first_head + h, position, sample) + i;
    a[h] = load_pack<T, kWidth>(from);
    c[h] = load_pack<T, kWidth>(from + args.half);
  }
  float cos[kWidth], sin[kWidth];
  if (first_head < args.rotated) {
    load_floats<kWidth>(args.rotation.cos + int64_t{position} * args.half + i, cos);
    load_floats<kWidth>(args.rotation.sin + int64_t{position} * args.half + i, sin);
  }
  T* to = static_cast<T*>(args.to) + token * args.width + i;
#pragma unroll
  for (int h = 0; h < kHeadsAThread; ++h) {
    const int head = first_head + h;
    if (head >= all) break;
    T* at = to + int64_t{head} * 2 * args.half;
    if (head >= args.rotated) {
      store_pack(at, a[h]);
      store_pack(at + args.half, c[h]);
      continue;
    }
    float first[kWidth], second[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float x = wide(a[h].values[j]);
      const float y = wide(c[h].values[j]);
      const float s = args.rotation.sign * sin[j];
      first[j] = x * cos[j] - y * s;
      second[j] = y * cos[j] + x * s;
    }
    store<T, kWidth>(at, first);
    store<T, kWidth>(at + args.half, second);
  }
}

unsigned blocks_of(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

constexpr int64_t kMost32 = int64_t{1} << 31;

/// launch(first row, rows) with at most kMost32 packs each.
template <typename Launch>
void in_slabs(int64_t rows, int64_t packs_a_row, const Launch& launch) {
  const int64_t slab = std::max<int64_t>(kMost32 / packs_a_row, 1);
  for (int64_t first = 0; first < rows; first += slab) launch(first, std::min(slab, rows - first));
}

/// Of a MoveHeads that lacks what follows from the width of a load. Positions are few enough for 32
/// bit each time: whole positions make a slab.
template <typename T, int kWidth>
void launch_move(MoveHeads args, int64_t positions, cudaStream_t stream) {
  const int all = args.heads[0] + args.heads[1] + args.heads[2];
  args.packs_a_half = static_cast<uint32_t>(args.half / kWidth);
  args.head_groups = static_cast<uint32_t>((all + kHeadsAThread - 1) / kHeadsAThread);
  const int64_t threads_a_position = int64_t{args.batch} * args.head_groups * args.packs_a_half;
  in_slabs(positions, threads_a_position, [&](int64_t first, int64_t count) {
    MoveHeads slab = args;
    for (StridedHeads& from : slab.from)
      from.data = static_cast<const T*>(from.data) + first * from.position;
    slab.to = static_cast<T*>(args.to) + first * args.batch * args.width;
    if (args.rotated > 0) {
      slab.rotation.cos += first * args.half;
      slab.rotation.sin += first * args.half;
    }
    slab.threads = static_cast<uint32_t>(count * threads_a_position);
    move_heads_kernel<T, kWidth><<<blocks_of(slab.threads), kThreads, 0, stream>>>(slab);
  });
}

/// Whether halves of heads begin at 16 bytes from wherever they come.
template <typename T>
bool heads_move_in_packs(const MoveHeads& args) {
  const auto fits = [](int64_t size, const void* data) { return moves_in_packs<T>(size, data); };
  for (const StridedHeads& from : args.from) {
    if (!fits(from.position, from.data) || !fits(from.batch, from.data) ||
        !fits(from.head, from.data))
      return false;
  }
  return fits(args.half, args.to) && fits(args.width, args.to) &&
         (args.rotated == 0 ||
          (fits(args.half, args.rotation.cos) && fits(args.half, args.rotation.sin)));
}

void move_heads(Element element, const MoveHeads& args, int64_t positions, Stream stream) {
  if (positions == 0 || args.batch == 0 || args.half == 0) return;
  with_packs(
      element, [&](auto type) { return heads_move_in_packs<decltype(type)>(args); },
      [&](auto type, auto width) {
        launch_move<decltype(type), width>(args, positions, static_cast<cudaStream_t>(stream));
      });
}

}  // namespace

void swiglu(Element element, const void* gate_up, void* output, uint32_t* amax_bits, int64_t rows,
            int64_t ffn, Stream stream) {
  if (rows * ffn == 0) return;
  with_packs(
      element, [&](auto type) { return moves_in_packs<decltype(type)>(ffn, gate_up, output); },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs_a_row = ffn / width;
        in_slabs(rows, packs_a_row, [&](int64_t first, int64_t count) {
          const int64_t packs = count * packs_a_row;
          swiglu_kernel<T, width>
              <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                  static_cast<const T*>(gate_up) + first * 2 * ffn,
                  static_cast<T*>(output) + first * ffn, amax_bits, static_cast<uint32_t>(packs),
                  static_cast<uint32_t>(packs_a_row));
        });
      });
}

void swiglu_backward(Element element, const void* grad_output, const void* gate_up,
                     void* grad_gate_up, uint32_t* amax_bits, int64_t rows, int64_t ffn,
                     Stream stream) {
  if (rows * ffn == 0) return;
  with_packs(
      element,
      [&](auto type) {
        return moves_in_packs<decltype(type)>(ffn, grad_output, gate_up, grad_gate_up);
      },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs_a_row = ffn / width;
        in_slabs(rows, packs_a_row, [&](int64_t first, int64_t count) {
          const int64_t packs = count * packs_a_row;
          swiglu_backward_kernel<T, width>
              <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                  static_cast<const T*>(grad_output) + first * ffn,
                  static_cast<const T*>(gate_up) + first * 2 * ffn,
                  static_cast<T*>(grad_gate_up) + first * 2 * ffn, amax_bits,
                  static_cast<uint32_t>(packs), static_cast<uint32_t>(packs_a_row));
        });
      });
}

void gelu_tanh(Element element, const void* x, void* output, int64_t count, Stream stream) {
  if (count == 0) return;
  with_packs(
      element, [&](auto type) { return moves_in_packs<decltype(type)>(count, x, output); },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = count / width;
        gelu_kernel<T, width><<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            static_cast<const T*>(x), static_cast<T*>(output), packs);
      });
}

void gelu_tanh_backward(Element element, const void* grad_output, const void* x, void* grad_x,
                        int64_t count, Stream stream) {
  if (count == 0) return;
  with_packs(
      element,
      [&](auto type) { return moves_in_packs<decltype(type)>(count, grad_output, x, grad_x); },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = count / width;
        gelu_backward_kernel<T, width>
            <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                static_cast<const T*>(grad_output), static_cast<const T*>(x),
                static_cast<T*>(grad_x), packs);
      });
}

void rotate(const Rotary& args, Stream stream) {
  if (args.heads == 0) return;
  MoveHeads move;
  for (StridedHeads& from : move.from)
    from = {args.packed, args.batch * args.width, args.width, args.head_dim};
  move.heads[0] = static_cast<int>(args.heads);
  move.to = args.packed;
  move.width = args.width;
  move.rotation = args.rotation;
  move.rotated = static_cast<int>(args.heads);
  move.batch = static_cast<uint32_t>(args.batch);
  move.half = static_cast<int>(args.head_dim / 2);
  move_heads(args.element, move, args.positions, stream);
}

void pack_heads(const PackHeads& args, Stream stream) {
  MoveHeads move;
  move.from[0] = args.q;
  move.from[1] = args.k;
  move.from[2] = args.v;
  move.heads[0] = static_cast<int>(args.heads);
  move.heads[1] = static_cast<int>(args.kv_heads);
  move.heads[2] = static_cast<int>(args.kv_heads);
  move.to = args.packed;
  move.width = (args.heads + 2 * args.kv_heads) * args.head_dim;
  move.rotation = args.rotation;
  move.rotated = args.rotation.cos != nullptr ? static_cast<int>(args.heads + args.kv_heads) : 0;
  move.batch = static_cast<uint32_t>(args.batch);
  move.half = static_cast<int>(args.head_dim / 2);
  move_heads(args.element, move, args.positions, stream);
}

}  // namespace tptrain::kernels::cuda
