// Where documents that lie end to end begin, counted in elements of several buffers.
#pragma once

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

struct DocumentRows {
  static constexpr int kBuffers = 4;
  const int32_t* ends = nullptr;  // [documents + 1], the first 0
  int64_t documents = 0;
  int32_t* lengths = nullptr;     // [documents]
  int32_t* first[kBuffers] = {};  // [documents + 1] each: ends times `width`, which int32 holds
  int64_t width[kBuffers] = {};
};
void document_rows(const DocumentRows& args, Stream stream);

}  // namespace tptrain::kernels::cuda
