// Cross entropy on a whole vocabulary, both passes of vocab.cu in one: nothing comes between them,
// so a row waits in shared memory for its gradient and is read once. Blocks stay until the last
// row: as soon as a piece of a row's gradient is written, the next row's piece is sent for, into
// its place.
//
// A block holds a row where a multiprocessor has room for two such blocks, of which one waits for
// its row while the other one writes. Longer rows lie in the blocks of a cluster, which tell each
// other what their warps met: by st.async, since a barrier of the cluster would wait for all that
// was written to global memory as well.
#include <cooperative_groups.h>

#include <algorithm>

#include "kernels/cuda/properties.h"
#include "kernels/cuda/vocab.cuh"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kMostBlocksOfRow = 8;  // of a cluster, wherever there are clusters

/// Of a row's slice in a block of a cluster of `blocks`.
int64_t row_bytes(const Vocab& args, int64_t blocks) {
  const int64_t elements = kRowThreads * (args.element == Element::bf16 ? 8 : 4);
  const int64_t packs = (args.vocab + elements - 1) / elements;  // of a thread
  return packs * (kRowThreads / blocks) * int64_t{sizeof(uint4)};
}
constexpr int64_t kOtherBytes = 2 << 10;  // what the device and the blocks' news take
/// How many have room on a multiprocessor; 0: a block must not have as much.
int64_t resident_blocks(const Vocab& args, int64_t blocks) {
  const int64_t bytes = row_bytes(args, blocks) + kOtherBytes;
  return bytes > shared_bytes_of_block() ? 0 : shared_bytes_of_multiprocessor() / bytes;
}
/// The fewest that hold a row: of 8,192 rows of 151,936 clusters of two, four, eight
/// take 1.27, 1.33 and 1.38 ms on an H200. 0: no cluster holds it.
int64_t blocks_of_row(const Vocab& args) {
  if (resident_blocks(args, 1) >= 2) return 1;
  for (int64_t blocks = 2; blocks <= kMostBlocksOfRow; blocks *= 2) {
    if (resident_blocks(args, blocks) > 0) return blocks;
  }
  return 0;
}

#if __CUDA_ARCH__ >= 900
constexpr int kPacksAtOnce = 2;  // of a thread
constexpr int kParts = 4;        // of a row: the first is met while others are on their way

__device__ uint32_t shared_address(const void* of) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(of));
}

/// What the warps of a row met, in the block of each of its threads. Rows take turns in two places:
/// who tells of a row has read all about the one two rows before.
template <bool kCluster>
class News {
 public:
  struct Memory {
    OnlineSum warps[2][kRowWarps];
    alignas(8) uint64_t arrived[2];  // mbarriers
  };
  __device__ explicit News(Memory& memory) : memory_(memory) {
    if constexpr (kCluster) {
      if (threadIdx.x < 2) {
        asm volatile(
            "mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(
                shared_address(memory_.arrived + threadIdx.x))
            : "memory");
      }
      __syncwarp();
      asm volatile(
          "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
              : "memory");
    }
  }

  __device__ void begin_row() {
    turn_ ^= 1;
    if constexpr (kCluster) {
      if (threadIdx.x == 0) {
        asm volatile(
            "{\n.reg .b64 state;\n"
            "mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n}" ::"r"(
                shared_address(memory_.arrived + turn_)),
            "n"(sizeof(OnlineSum) * kRowWarps)
            : "memory");
      }
    }
  }
  /// By one thread of a warp.
  __device__ void tell(int warp, int blocks, const OnlineSum& met) {
    if constexpr (kCluster) {
      for (int block = 0; block < blocks; ++block) {
        asm volatile(
            "{\n.reg .b32 to, barrier;\nmapa.shared::cluster.u32 to, %0, %2;\n"
            "mapa.shared::cluster.u32 barrier, %1, %2;\n"
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 "
            "[to], {%3, %4}, [barrier];\n}" ::"r"(shared_address(memory_.warps[turn_] + warp)),
            "r"(shared_address(memory_.arrived + turn_)), "r"(block), "f"(met.largest), "f"(met.sum)
            : "memory");
      }
    } else {
      memory_.warps[turn_][warp] = met;
    }
  }
  /// The row's warps, once all have told.
  __device__ const OnlineSum* wait() {
    if constexpr (kCluster) {
      asm volatile(
          "{\n.reg .pred done;\nagain:\n"
          "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
          "@!done bra again;\n}" ::"r"(shared_address(memory_.arrived + turn_)),
          "r"((phases_ >> turn_) & 1)
          : "memory");
      phases_ ^= 1 << turn_;
    } else {
      __syncthreads();
    }
    return memory_.warps[turn_];
  }

 private:
  Memory& memory_;
  int turn_ = 1;
  int phases_ = 0;  // a bit a turn
};

/// A thread's packs of a row, every kRowThreads-th from its own number on, in its places of the
/// block's memory. It reads what it has sent for itself and nothing else.
template <typename T, int kWidth, bool kCluster>
class KeptPacks {
 public:
  static constexpr int kStep = kRowThreads * kWidth;  // from one of its packs to the next
  using Place = uint4*;

  __device__ KeptPacks(uint4* memory, int thread, int vocab)
      : own_(memory + threadIdx.x),
        count_((vocab / kWidth - thread + kRowThreads - 1) / kRowThreads) {}

  __device__ void send_for(Place first, int p, const T* from) const {
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(first + p * distance())),
        "l"(from)
        : "memory");
  }
  __device__ Pack<T, kWidth> pack(Place first, int p) const {
    return *reinterpret_cast<const Pack<T, kWidth>*>(first + p * distance());
  }

  /// work(place of the first, count of packs as a constant), part by part, kAtOnce of them where
  /// there are as many left of it; before(part), from 1, and after() each part.
  template <int kAtOnce, typename Before, typename Work, typename After>
  __device__ void for_each(const Before& before, const Work& work, const After& after) const {
    int pack = 0;
    Place place = own_;
#pragma unroll 1
    for (int part = 1; part <= kParts; ++part) {
      before(part);
      const int end =
          part == kParts ? count_ : count_ * part / kParts / kPacksAtOnce * kPacksAtOnce;
#pragma unroll 1
      for (; pack + kAtOnce <= end; pack += kAtOnce, place += kAtOnce * distance())
        work(place, std::integral_constant<int, kAtOnce>{});
      if constexpr (kAtOnce > 1) {
#pragma unroll 1
        for (; pack < end; ++pack, place += distance())
          work(place, std::integral_constant<int, 1>{});
      }
      after();
    }
  }

 private:
  __device__ int distance() const { return kCluster ? static_cast<int>(blockDim.x) : kRowThreads; }

  Place own_;
  int count_;
};

__device__ void end_part() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Of kParts that were ended since the row's begin.
__device__ void wait_for_part(int part) {
  static_assert(kParts == 4, "an instruction each");
  if (part == 1) asm volatile("cp.async.wait_group 3;" ::: "memory");
  if (part == 2) asm volatile("cp.async.wait_group 2;" ::: "memory");
  if (part == 3) asm volatile("cp.async.wait_group 1;" ::: "memory");
  if (part == 4) asm volatile("cp.async.wait_group 0;" ::: "memory");
}
#endif

/// kCluster: of several blocks, kRowThreads threads in all. Thread t meets what thread t of
/// statistics_kernel does, in its order, and joins likewise: the results are those of the two
/// kernels, bit for bit.
// Long: one walk over the rows; what it holds in registers of a row and the next, every part uses.
template <typename T, int kWidth, bool kCluster>
__global__ void __launch_bounds__(kRowThreads, kCluster ? 1 : 2) once_kernel(Vocab args) {
#if __CUDA_ARCH__ >= 900
  // [packs of a thread, threads of the block]. From a line's begin: 16 bytes off, the whole kernel
  // takes a twentieth longer.
  extern __shared__ __align__(128) uint4 memory[];
  __shared__ typename News<kCluster>::Memory news_memory;
  int blocks = 1, thread = static_cast<int>(threadIdx.x);
  if constexpr (kCluster) {
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    blocks = static_cast<int>(cluster.num_blocks());
    thread += static_cast<int>(cluster.block_rank() * blockDim.x);
  }
  const int64_t step = gridDim.x / blocks;
  const int vocab = static_cast<int>(args.vocab);
  const int left = vocab / kWidth * kWidth + thread;
  using Kept = KeptPacks<T, kWidth, kCluster>;
  using Place = typename Kept::Place;
  constexpr int kStep = Kept::kStep;
  const Kept kept(memory, thread, vocab);
  const auto last_of = [&](const T* row) {
    return left < vocab ? load_pack<T, 1>(row + left) : zero_pack<T, 1>();
  };
  const auto logit_of = [&](const T* row, int64_t target) {
    return thread == 0 && lies_here(target, args) ? wide(row[target - args.vocab_begin]) : NAN;
  };
  const auto nothing = [](int) {};

  int64_t token = blockIdx.x / blocks;
  T* row = static_cast<T*>(args.logits) + token * args.stride;
  int64_t target = args.targets[token];
  Pack<T, 1> last = last_of(row);
  float logit = logit_of(row, target);
  const T* from = row + thread * kWidth;
  kept.template for_each<1>(
      nothing,
      [&](Place place, auto) {
        kept.send_for(place, 0, from);
        from += kStep;
      },
      end_part);
  News<kCluster> news(news_memory);
  for (;;) {
    news.begin_row();
    const bool more = token + step < args.tokens;
    const int64_t next_target = more ? args.targets[token + step] : kIgnored;
    OnlineSum own = nothing_met();
    kept.template for_each<kPacksAtOnce>(
        wait_for_part,
        [&](Place first, auto count) {
          constexpr int kPacks = decltype(count)::value;
          Pack<T, kWidth> packs[kPacks];
#pragma unroll
          for (int p = 0; p < kPacks; ++p) packs[p] = kept.pack(first, p);
          meet<T, kWidth, kPacks>(own, packs);
        },
        [] {});
    if (left < vocab) meet_last<T>(own, last);
    own = joined_lanes<T, 32>(own);
    if (threadIdx.x % 32 == 0) news.tell(thread / 32, blocks, own);
    own = joined_warps<T>(news.wait());
    own.largest = __shfl_sync(~0u, own.largest, 0);
    own.sum = __shfl_sync(~0u, own.sum, 0);
    if (thread == 0) store_statistics(args, token, own, logit);

    T* const next = row + step * args.stride;
    const Pack<T, 1> next_last = more ? last_of(next) : zero_pack<T, 1>();
    if (more) logit = logit_of(next, next_target);
#pragma unroll 1
    for (int64_t beyond = vocab + thread; beyond < args.stride; beyond += kRowThreads)
      row[beyond] = narrow<T>(0.0f);
    T* to = row + thread * kWidth;
    from = next + thread * kWidth;
    const auto send_for_next = [&](Place first, auto count) {
      constexpr int kPacks = decltype(count)::value;
      if (more) {
#pragma unroll
        for (int p = 0; p < kPacks; ++p) kept.send_for(first, p, from + p * kStep);
      }
      to += kPacks * kStep;
      from += kPacks * kStep;
    };
    if (target == kIgnored) {
      kept.template for_each<1>(
          nothing,
          [&](Place place, auto count) {
            store_pack(to, zero_pack<T, kWidth>());
            send_for_next(place, count);
          },
          end_part);
      if (left < vocab) row[left] = narrow<T>(0.0f);
    } else {
      const RowGradient of(args, target, row_max_of(own), own.sum);
      const AtTarget<T, kWidth> at_target(of, row, vocab, thread);
      with_quick<T>(of, [&](auto quick) {
        constexpr bool kQuick = decltype(quick)::value;
        kept.template for_each<kQuick ? kPacksAtOnce : 1>(
            nothing,
            [&](Place first, auto count) {
              constexpr int kPacks = decltype(count)::value;
              Pack<T, kWidth> packs[kPacks];
#pragma unroll
              for (int p = 0; p < kPacks; ++p) packs[p] = kept.pack(first, p);
#pragma unroll
              for (int p = 0; p < kPacks; ++p)
                store_gradient<T, kWidth, kQuick>(of, packs[p], to + p * kStep);
              send_for_next(first, count);
            },
            end_part);
        if (left < vocab) store_gradient<T, 1, kQuick>(of, last, row + left);
        at_target.template store<kQuick>(of, row);
      });
    }
    if (!more) return;
    token += step;
    row = next;
    target = next_target;
    last = next_last;
  }
#endif
}

/// As many clusters as run at once, each with its share of the rows.
template <typename T, int kWidth, bool kCluster>
void launch(const Vocab& args, int64_t blocks, cudaStream_t stream) {
  const auto kernel = once_kernel<T, kWidth, kCluster>;
  const int64_t bytes = row_bytes(args, blocks);
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (bytes > kWithoutAsking) {
    // Whether it refuses, the launch tells.
    static_cast<void>(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(bytes)));
  }
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(args.tokens * blocks));
  config.blockDim = dim3(static_cast<unsigned>(kRowThreads / blocks));
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  int at_once = 0;
  static_cast<void>(cudaOccupancyMaxActiveClusters(&at_once, kernel, &config));
  const int64_t clusters = std::clamp<int64_t>(at_once, 1, args.tokens);
  config.gridDim = dim3(static_cast<unsigned>(clusters * blocks));
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, args));
}

template <typename T, int kWidth>
void launch(const Vocab& args, cudaStream_t stream) {
  const int64_t blocks = blocks_of_row(args);
  if (blocks == 1) return launch<T, kWidth, false>(args, blocks, stream);
  launch<T, kWidth, true>(args, blocks, stream);
}

}  // namespace

bool takes_vocab_both(const Vocab& args) {
  constexpr int kClusters = 90;  // capability
  const bool packs = args.element == Element::bf16
                         ? moves_in_packs<__nv_bfloat16>(args.stride, args.logits)
                         : moves_in_packs<float>(args.stride, args.logits);
  return packs && capability() >= kClusters && blocks_of_row(args) > 0;
}

void vocab_both(const Vocab& args, Stream stream) {
  if (args.tokens == 0) return;
  if (args.element == Element::bf16) {
    launch<__nv_bfloat16, 8>(args, static_cast<cudaStream_t>(stream));
  } else {
    launch<float, 4>(args, static_cast<cudaStream_t>(stream));
  }
}

}  // namespace tptrain::kernels::cuda
