#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "base/background.h"
#include "base/error.h"
#include "base/text.h"
#include "zero/host_memory.h"

namespace tptrain::zero {

namespace {

// Several threads give the pages their memory: locking them one by one afterwards is then quick.
void touch(std::byte* data, size_t size) {
  constexpr size_t kPart = size_t{64} << 20;
  const auto parts = static_cast<int64_t>((size + kPart - 1) / kPart);
  in_parallel(parts, std::min(usable_cores(), 16), [&](int64_t part) {
    const size_t begin = static_cast<size_t>(part) * kPart;
    std::memset(data + begin, 0, std::min(kPart, size - begin));
  });
}

}  // namespace

bool lock_pages(void* data, size_t size, c10::Device device) {
  if (!device.is_cuda()) return false;
  const c10::cuda::CUDAGuard guard(device);
  touch(static_cast<std::byte*>(data), size);
  const cudaError_t error = cudaHostRegister(data, size, cudaHostRegisterDefault);
  if (error == cudaSuccess) return true;
  cudaGetLastError();  // it is told here, and not by whichever call comes next
  throw ConfigError(
      problem(cat(human_bytes(static_cast<int64_t>(size)),
                  " of host memory cannot be page-locked (", cudaGetErrorString(error), ")"))
          .must("hold a copy of the state while it is saved")
          .remedy("Set checkpoint.async to false."));
}

void unlock_pages(void* data) { cudaHostUnregister(data); }

}  // namespace tptrain::zero
