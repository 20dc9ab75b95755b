// The sum at the end of a reduction in pieces: plain pointers, no torch, so that nvcc sees none.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace tptrain::comm {

inline constexpr int kMostPieces = 16;

/// total[i] = terms[0][i] + terms[1][i] + .. in fp32 and in that order, rounded once.
struct SumPieces {
  const void* terms[kMostPieces] = {};  // of `count` elements, at 16 bytes
  int pieces = 0;
  void* total = nullptr;
  bool bf16 = false;  // else fp32
  int64_t count = 0;
};
void sum_pieces(const SumPieces& args, cudaStream_t stream);

}  // namespace tptrain::comm
