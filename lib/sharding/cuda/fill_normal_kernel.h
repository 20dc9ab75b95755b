// The kernel behind fill_normal.h: plain pointers, no torch.
#pragma once

#include <cstdint>

namespace tptrain::sharding::cuda {

struct FillNormal {
  float* out = nullptr;
  int64_t count = 0;
  int64_t begin = 0;  // of the first element, row-major in the slice
  // The slice is [outer, local, inner] of a global [outer, global, inner], from `offset` on.
  int64_t local = 1;
  int64_t global = 1;
  int64_t inner = 1;
  int64_t offset = 0;
  double std = 0;
  uint32_t key[2] = {};
};
void fill_normal(const FillNormal& args, void* stream);

}  // namespace tptrain::sharding::cuda
