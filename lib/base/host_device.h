// For the few functions that host code and device code (nvcc) share to the letter.
#pragma once

#ifdef __CUDACC__
#define TPTRAIN_HOST_DEVICE __host__ __device__
#else
#define TPTRAIN_HOST_DEVICE
#endif
