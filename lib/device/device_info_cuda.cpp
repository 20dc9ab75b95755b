#include <ATen/cuda/CUDAContext.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>

#include "base/error.h"
#include "base/text.h"
#include "device/device_info.h"
#include "device/gpu_environment.h"
#include "device/gpu_links.h"
#include "device/nvml.h"
#include "device/pci_bus_id.h"

namespace tptrain::device {
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

}  // namespace

bool can_map(int device, const std::string& pci_bus_id, const std::string& other) {
  int index = 0;
  int can = 0;
  if (cudaDeviceGetByPCIBusId(&index, other.c_str()) == cudaSuccess &&
      cudaDeviceCanAccessPeer(&can, device, index) == cudaSuccess)
    return can != 0;
  cudaGetLastError();  // it is not visible to this process
  return nvml_pair(pci_bus_id, other).reads.value_or(true);
}

bool joined_by_nvlink(int device, const std::string& pci_bus_id, const std::string& other) {
  const NvmlPair pair = nvml_pair(pci_bus_id, other);
  if (pair.nvlink.value_or(false)) return true;
  int index = 0;
  int atomics = 0;  // of one GPU on another's memory: NVLink has them, PCIe has not
  if (cudaDeviceGetByPCIBusId(&index, other.c_str()) == cudaSuccess &&
      cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, device, index) ==
          cudaSuccess)
    return atomics != 0;
  cudaGetLastError();
  const auto has_links = [](const std::string& id) {
    return nvml_facts(id).active_links.value_or(0) > 0;
  };
  return !pair.nvlink && has_links(pci_bus_id) && has_links(other);
}

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

GpuFacts gpu_facts(at::Device device, int local_rank, const std::vector<std::string>& host_gpus) {
  GpuFacts facts;
  facts.name = properties(device).name;
  facts.memory_bytes = static_cast<int64_t>(properties(device).totalGlobalMem);

  int driver = 0;
  int runtime = 0;
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion", device);
  check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion", device);
  facts.driver_cuda = cuda_version_text(driver);
  facts.cuda_runtime = cuda_version_text(runtime);
  if (at::detail::getCUDAHooks().hasCuDNN()) {
    facts.cudnn = cudnn_version_text(at::detail::getCUDAHooks().versionRuntimeCuDNN());
    facts.cudnn_built = cudnn_version_text(at::detail::getCUDAHooks().versionCuDNN());
  }
  facts.cublas = cublas_version();

  facts.local_rank = local_rank;
  facts.peers = static_cast<int>(host_gpus.size()) - 1;
  const std::string own = pci_bus_id(device);
  for (const std::string& other : host_gpus) {
    if (other != own) facts.mapped_peers += can_map(device.index(), own, other) ? 1 : 0;
  }

  const NvmlFacts nvml = nvml_facts(own);
  facts.driver = nvml.driver;
  facts.nvlinks = nvml.active_links;
  facts.queues = queues_of_device();
  return facts;
}

std::string device_name(at::Device device) { return properties(device).name; }

}  // namespace tptrain::device
