// For the few functions that host code and device code (nvcc) share to the letter.
#pragma once

#ifdef __CUDACC__
#define TPTRAIN_HOST_DEVICE __host__ __device__
#define TPTRAIN_HOST_DEVICE_INLINE __host__ __device__ __forceinline__
#else
#define TPTRAIN_HOST_DEVICE
// A clone for another instruction set can take in only what is always inlined.
#define TPTRAIN_HOST_DEVICE_INLINE __attribute__((always_inline)) inline
#endif
