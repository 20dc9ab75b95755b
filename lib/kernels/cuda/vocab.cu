// Cross entropy on a vocabulary slice: a block a row. One pass over the logits makes the row's
// maximum and its sum of exponentials (relative to the largest logit a thread has met so far), a
// second one the gradient. The exponentials are made twice instead of kept: logits may then be
// bf16, where kept ones would lose their digits. Source of the one-pass sum: Milakov & Gimelshein,
// "Online normalizer calculation for softmax", 2018.
//
// Rows begin where loads of 16 bytes may, but need not end there: what is left of a row moves
// element by element.
//
// With one slice nothing comes between the two passes: vocab_once.cu reads the logits once.
#include "kernels/cuda/vocab.cuh"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kPacksAtOnce = 4;  // loads in flight of a thread

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) statistics_kernel(Vocab args) {
  const int64_t token = blockIdx.x;
  const T* row = static_cast<const T*>(args.logits) + token * args.stride;
  const int vocab = static_cast<int>(args.vocab);
  const int whole = vocab / kWidth * kWidth;
  constexpr int kStep = kRowThreads * kWidth;
  OnlineSum own = nothing_met();
  int i = threadIdx.x * kWidth;
  for (; i + (kPacksAtOnce - 1) * kStep < whole; i += kPacksAtOnce * kStep) {
    Pack<T, kWidth> packs[kPacksAtOnce];
#pragma unroll
    for (int p = 0; p < kPacksAtOnce; ++p) packs[p] = load_pack<T, kWidth>(row + i + p * kStep);
    meet<T, kWidth, kPacksAtOnce>(own, packs);
  }
  for (; i < whole; i += kStep) {
    const Pack<T, kWidth> packs[1] = {load_pack<T, kWidth>(row + i)};
    meet<T, kWidth, 1>(own, packs);
  }
  if (whole + static_cast<int>(threadIdx.x) < vocab)
    meet_last<T>(own, load_pack<T, 1>(row + whole + threadIdx.x));

  __shared__ OnlineSum warps[kRowWarps];
  own = joined_lanes<T, 32>(own);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  own = joined_warps<T>(warps);
  if (threadIdx.x == 0) store_statistics(args, token, own, target_logit(args, row, token));
}

template <typename T>
__global__ void rescale_kernel(Vocab args) {
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (token >= args.tokens) return;
  const float largest = args.row_max[token];
  args.sums[token] *= expf(args.slice_max[token] - largest);
  const int64_t target = args.targets[token];
  if (!lies_here(target, args)) return;
  const T* row = static_cast<const T*>(args.logits) + token * args.stride;
  args.sums[args.tokens + token] = wide(row[target - args.vocab_begin]) - largest;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) backward_kernel(Vocab args) {
  const int64_t token = blockIdx.x;
  T* row = static_cast<T*>(args.logits) + token * args.stride;
  const int vocab = static_cast<int>(args.vocab);
  const int whole = vocab / kWidth * kWidth;
  const int left = whole + static_cast<int>(threadIdx.x);
  constexpr int kStep = kRowThreads * kWidth;
  int i = threadIdx.x * kWidth;
  // Between the rows: products take it along.
  for (int64_t beyond = vocab + threadIdx.x; beyond < args.stride; beyond += kRowThreads)
    row[beyond] = narrow<T>(0.0f);
  const int64_t target = args.targets[token];
  if (target == kIgnored) {
    for (; i < whole; i += kStep) store_pack(row + i, zero_pack<T, kWidth>());
    if (left < vocab) row[left] = narrow<T>(0.0f);
    return;
  }
  const RowGradient of(args, target, args.row_max[token], args.sums[token]);
  const AtTarget<T, kWidth> at_target(of, row, vocab, static_cast<int>(threadIdx.x));
  with_quick<T>(of, [&](auto quick) {
    constexpr bool kQuick = decltype(quick)::value;
    for (; i + (kPacksAtOnce - 1) * kStep < whole; i += kPacksAtOnce * kStep) {
      Pack<T, kWidth> packs[kPacksAtOnce];  // all loads before the first store
#pragma unroll
      for (int p = 0; p < kPacksAtOnce; ++p) packs[p] = load_pack<T, kWidth>(row + i + p * kStep);
#pragma unroll
      for (int p = 0; p < kPacksAtOnce; ++p)
        store_gradient<T, kWidth, kQuick>(of, packs[p], row + i + p * kStep);
    }
    for (; i < whole; i += kStep)
      store_gradient<T, kWidth, kQuick>(of, load_pack<T, kWidth>(row + i), row + i);
    if (left < vocab) store_gradient<T, 1, kQuick>(of, load_pack<T, 1>(row + left), row + left);
    at_target.template store<kQuick>(of, row);
  });
}

}  // namespace

void vocab_statistics(const Vocab& args, Stream stream) {
  with_rows(args, [&](auto element, auto width) {
    statistics_kernel<decltype(element), width>
        <<<static_cast<unsigned>(args.tokens), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

void vocab_rescale(const Vocab& args, Stream stream) {
  if (args.tokens == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<unsigned>((args.tokens + kThreads - 1) / kThreads);
  if (args.element == Element::bf16) {
    rescale_kernel<__nv_bfloat16><<<blocks, kThreads, 0, on>>>(args);
  } else {
    rescale_kernel<float><<<blocks, kThreads, 0, on>>>(args);
  }
}

void vocab_backward(const Vocab& args, Stream stream) {
  with_rows(args, [&](auto element, auto width) {
    backward_kernel<decltype(element), width>
        <<<static_cast<unsigned>(args.tokens), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

}  // namespace tptrain::kernels::cuda
