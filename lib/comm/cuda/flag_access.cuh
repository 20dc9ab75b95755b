// Flags in memory that GPUs share, as kernels raise and look at them. Internal to comm.
#pragma once

#include <cstdint>

namespace tptrain::comm {

/// Behind all writes of this thread, and of others that it has synchronised with.
__device__ inline void raise(uint32_t* flag, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
__device__ inline uint32_t look_at(const uint32_t* flag) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

}  // namespace tptrain::comm
