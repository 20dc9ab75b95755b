// Instructions of capability 9.0 that have no name in CUDA C++: tiles of matrices by the bulk copy
// engine, the barriers that tell of them, and the products of a warpgroup (PTX ISA, sections on
// cp.async.bulk.tensor, mbarrier and wgmma). For code of sm_90a alone.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace tptrain::kernels::cuda::hopper {

__device__ inline uint32_t shared_address(const void* of) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(of));
}

/// In shared memory, by its address there. Copies and products alone read and write what it tells
/// of, and they are done when it is told: so arrivals and waits order no memory beyond the block's.
/// Of the whole cluster they would cost a fence of the device each: a quarter of a product's time.
struct Barrier {
  uint32_t at;

  __device__ void init(uint32_t arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
  }
  /// Arrives, and makes the phase wait for so many bytes of copies.
  __device__ void expect(uint32_t bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes)
                 : "memory");
  }
  /// At this barrier of another block of the cluster.
  __device__ void arrive_at(uint32_t block) const {
    asm volatile(
        "{\n\t"
        ".reg .b32 there;\n\t"
        "mapa.shared::cluster.u32 there, %0, %1;\n\t"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n\t"
        "}" ::"r"(at),
        "r"(block)
        : "memory");
  }
  /// Until the phase of this parity is over.
  __device__ void wait(uint32_t parity) const {
    asm volatile(
        "{\n\t"
        ".reg .pred over;\n\t"
        "again:\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n\t"
        "@!over bra again;\n\t"
        "}" ::"r"(at),
        "r"(parity)
        : "memory");
  }
};

/// What every block of the cluster did before is seen behind it.
__device__ inline void cluster_barrier() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n\t"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}
__device__ inline uint32_t rank_in_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// A box of a tensor of three dimensions, to shared memory; `arrived` counts its bytes.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& from, const Barrier& arrived, int x,
                                int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(&from), "r"(arrived.at), "r"(x), "r"(y), "r"(z)
      : "memory");
}
/// To the same place, and barrier, of each block of the cluster that has its bit in `blocks`.
__device__ inline void copy_box_to(uint16_t blocks, uint32_t to, const CUtensorMap& from,
                                   const Barrier& arrived, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
      "l"(&from), "r"(arrived.at), "r"(x), "r"(y), "r"(z), "h"(blocks)
      : "memory");
}

constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
constexpr uint64_t kEightRows = 8 * 128;  // bytes

/// What a product's operand says of 16 of K, where these are rows of 64 columns, 128 bytes each,
/// swizzled by 128 bytes: [K][64], the next 64 columns `next` bytes further.
__device__ inline uint64_t operand_along_columns(uint32_t address, uint32_t next) {
  return ((address & 0x3ffffu) >> 4) | uint64_t{next >> 4} << 16 | (kEightRows >> 4) << 32 |
         kSwizzle128;
}
/// Likewise where they are columns: [rows][64 of K].
__device__ inline uint64_t operand_along_rows(uint32_t address) {
  return ((address & 0x3ffffu) >> 4) | uint64_t{1} << 16 | (kEightRows >> 4) << 32 | kSwizzle128;
}

// A warpgroup's products run beside it: what they write may be touched behind products_done alone.
__device__ inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// All but the last `kOpen` commits are done.
template <int kOpen>
__device__ inline void products_done() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kOpen) : "memory");
}

/// sums [64, 256] (+)= a b over 16 of K, bf16 in shared memory, each along its columns or rows. Of
/// a thread: sums[4 * j + i] is in row 16 * warp + lane / 4 (+ 8 for i of 2 and 3), column 8 * j +
/// 2 * (lane % 4) + i % 2.
template <bool kAColumns, bool kBColumns>
__device__ inline void multiply(float (&sums)[128], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n\t"
      ".reg .pred add;\n\t"
      "setp.ne.b32 add, %130, 0;\n\t"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
      "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "
      "%125, %126, %127}, %128, %129, add, 1, 1, %131, %132;\n\t"
      "}"
#define TPTRAIN_FOUR(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define TPTRAIN_SIXTEEN(i) \
  TPTRAIN_FOUR(i), TPTRAIN_FOUR(i + 4), TPTRAIN_FOUR(i + 8), TPTRAIN_FOUR(i + 12)
      : TPTRAIN_SIXTEEN(0), TPTRAIN_SIXTEEN(16), TPTRAIN_SIXTEEN(32), TPTRAIN_SIXTEEN(48),
        TPTRAIN_SIXTEEN(64), TPTRAIN_SIXTEEN(80), TPTRAIN_SIXTEEN(96), TPTRAIN_SIXTEEN(112)
#undef TPTRAIN_SIXTEEN
#undef TPTRAIN_FOUR
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(static_cast<int>(kAColumns)),
        "n"(static_cast<int>(kBColumns)));
}

/// Threads of this warpgroup have so many registers from here on, others the rest.
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void leave_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace tptrain::kernels::cuda::hopper
