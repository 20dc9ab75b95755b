#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime_api.h>

#include <array>

#include "device/cuda/architectures.h"
#include "device/gpu_report.h"
#include "device/gpu_support.h"
#include "device/host_gpus.h"
#include "device/nvml.h"

namespace tptrain::device {
namespace {

/// Of device `index` of `count`; makes it current.
HostGpu facts_of(int index, int count, std::string& driver) {
  HostGpu gpu;
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) return gpu;
  gpu.name = properties.name;
  gpu.capability = properties.major * 10 + properties.minor;
  gpu.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  gpu.runs_this_program = cudaSetDevice(index) == cudaSuccess && current_gpu_runs_this_program();
  for (int other = 0; other < count; ++other) {
    int can = 0;
    if (other != index && cudaDeviceCanAccessPeer(&can, index, other) == cudaSuccess)
      gpu.mapped_peers += can;
  }
  std::array<char, 32> bus = {};
  if (cudaDeviceGetPCIBusId(bus.data(), bus.size(), index) == cudaSuccess) {
    const NvmlFacts nvml = nvml_facts(bus.data());
    gpu.nvlinks = nvml.active_links;
    if (!nvml.driver.empty()) driver = nvml.driver;
  }
  return gpu;
}

}  // namespace

HostGpus host_gpus() {
  HostGpus host{.cuda_build = true, .architectures = compiled_architectures()};
  int number = 0;
  if (cudaDriverGetVersion(&number) == cudaSuccess) host.driver_cuda = number;
  if (cudaRuntimeGetVersion(&number) == cudaSuccess) host.runtime_cuda = number;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return host;
  for (int index = 0; index < count; ++index)
    host.gpus.push_back(facts_of(index, count, host.driver));
  if (count > 0 && at::detail::getCUDAHooks().hasCuDNN()) {
    host.cudnn = cudnn_version_text(at::detail::getCUDAHooks().versionRuntimeCuDNN());
    host.cudnn_built = cudnn_version_text(at::detail::getCUDAHooks().versionCuDNN());
  }
  return host;
}

}  // namespace tptrain::device
