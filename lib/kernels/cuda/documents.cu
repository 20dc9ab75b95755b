#include "kernels/cuda/documents.h"

namespace tptrain::kernels::cuda {

namespace {

__global__ void document_rows_kernel(DocumentRows args) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i > args.documents) return;
  const int32_t end = args.ends[i];
  if (i < args.documents) args.lengths[i] = args.ends[i + 1] - end;
#pragma unroll
  for (int buffer = 0; buffer < DocumentRows::kBuffers; ++buffer)
    args.first[buffer][i] = end * static_cast<int32_t>(args.width[buffer]);
}

}  // namespace

void document_rows(const DocumentRows& args, Stream stream) {
  constexpr int kThreads = 128;
  const auto blocks = static_cast<unsigned>(args.documents / kThreads + 1);
  document_rows_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
}

}  // namespace tptrain::kernels::cuda
