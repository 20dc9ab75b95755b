#include "kernels/cuda/properties.h"

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels::cuda {

namespace {

struct Pretence {
  Properties card;
  std::optional<FusedAttention> attention;
};
std::optional<Pretence> pretence;  // set by a test, before anything is launched

// The runtime keeps them: no call of the driver.
int attribute(int device, cudaDeviceAttr which) {
  int value = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&value, which, device);
  if (status == cudaSuccess) return value;
  throw InternalError(
      problem(cat("kernels: asking the GPU for an attribute: ", cudaGetErrorString(status))));
}

}  // namespace

Properties properties() {
  if (pretence) return pretence->card;
  int device = 0;
  const cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess)
    throw InternalError(problem(cat("kernels: asking for the GPU: ", cudaGetErrorString(status))));
  return {.multiprocessors = attribute(device, cudaDevAttrMultiProcessorCount),
          .shared_bytes_of_block = attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin),
          .shared_bytes_of_multiprocessor =
              attribute(device, cudaDevAttrMaxSharedMemoryPerMultiprocessor),
          .capability = 10 * attribute(device, cudaDevAttrComputeCapabilityMajor) +
                        attribute(device, cudaDevAttrComputeCapabilityMinor)};
}

std::optional<FusedAttention> chosen_attention() {
  return pretence ? pretence->attention : std::nullopt;
}

TakenFor::TakenFor(const Properties& card, std::optional<FusedAttention> attention) {
  pretence = {card, attention};
}
TakenFor::~TakenFor() { pretence.reset(); }

}  // namespace tptrain::kernels::cuda
