#include <ATen/cuda/CUDAContext.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>

#include <array>
#include <cstdlib>

#include "base/error.h"
#include "base/text.h"
#include "comm/device_info.h"
#include "comm/nvml.h"

namespace tptrain::comm {
namespace {

void check_cuda(cudaError_t status, const char* call, at::Device device) {
  if (status == cudaSuccess) return;
  throw CommError(
      problem(cat(call, " of ", device.str(), " failed (", cudaGetErrorString(status), ")")));
}

// Asked for once a process: the driver takes a millisecond to answer, and metrics ask every step.
const cudaDeviceProp& properties(at::Device device) {
  return *at::cuda::getDeviceProperties(device.index());
}

// Of the library that is loaded, whichever it is: it is no dependency of this program by itself.
std::string cublas_version() {
  using GetProperty = int (*)(int, int*);  // cublasGetProperty; 0, 1, 2: major, minor, patch
  const auto get = reinterpret_cast<GetProperty>(dlsym(RTLD_DEFAULT, "cublasGetProperty"));
  if (get == nullptr) return "";
  std::array<int, 3> parts = {};
  for (int i = 0; i < 3; ++i) {
    if (get(i, &parts[i]) != 0) return "";
  }
  return join(parts, ".");
}

std::string pci_bus_id(at::Device device) {
  std::array<char, 32> id = {};
  check_cuda(cudaDeviceGetPCIBusId(id.data(), id.size(), device.index()), "cudaDeviceGetPCIBusId",
             device);
  return id.data();
}

}  // namespace

DeviceMemory device_memory(at::Device device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return {.peak_reserved_bytes = stats.reserved_bytes[0].peak,
          .total_bytes = static_cast<int64_t>(properties(device).totalGlobalMem)};
}

DeviceUse device_use(at::Device device) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo", device);
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return {.total_bytes = static_cast<int64_t>(total_bytes),
          .free_bytes = static_cast<int64_t>(free_bytes),
          .reserved_bytes = stats.reserved_bytes[0].current,
          .peak_allocated_bytes = stats.allocated_bytes[0].peak};
}

GpuFacts gpu_facts(at::Device device, int local_size) {
  GpuFacts facts;
  facts.name = properties(device).name;
  facts.memory_bytes = static_cast<int64_t>(properties(device).totalGlobalMem);

  int driver = 0;
  int runtime = 0;
  int nccl = 0;
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion", device);
  check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion", device);
  if (ncclGetVersion(&nccl) != ncclSuccess) throw CommError(problem("ncclGetVersion failed"));
  facts.driver_cuda = cuda_version_text(driver);
  facts.cuda_runtime = cuda_version_text(runtime);
  facts.nccl = nccl_version_text(nccl);
  facts.nccl_built = nccl_version_text(NCCL_VERSION_CODE);
  if (at::detail::getCUDAHooks().hasCuDNN()) {
    facts.cudnn = cudnn_version_text(at::detail::getCUDAHooks().versionRuntimeCuDNN());
    facts.cudnn_built = cudnn_version_text(at::detail::getCUDAHooks().versionCuDNN());
  }
  facts.cublas = cublas_version();

  facts.local_rank = device.index();
  facts.peers = local_size - 1;
  for (int other = 0; other < local_size; ++other) {
    if (other == device.index()) continue;
    int can = 0;
    check_cuda(cudaDeviceCanAccessPeer(&can, device.index(), other), "cudaDeviceCanAccessPeer",
               device);
    facts.mapped_peers += can;
  }

  const NvmlFacts nvml = nvml_facts(pci_bus_id(device));
  facts.driver = nvml.driver;
  facts.nvlinks = nvml.active_links;
  // Of a text that is no number it is not known what CUDA makes.
  if (const char* set = std::getenv("CUDA_DEVICE_MAX_CONNECTIONS")) {
    const int queues = std::atoi(set);
    if (queues > 0) facts.queues = queues;
  }
  return facts;
}

std::string device_name(at::Device device) { return properties(device).name; }

}  // namespace tptrain::comm
