#include "comm/nvml.h"

#include <dlfcn.h>

#include <array>
#include <memory>

namespace tptrain::comm {

namespace {

// Of nvml.h, which a build machine need not have. Part of its stable interface.
using Device = struct nvmlDevice_st*;
constexpr int kSuccess = 0;
constexpr int kInvalidArgument = 2;  // of a link number beyond the last one
constexpr int kNotSupported = 3;     // this GPU has no NVLink
constexpr unsigned kMostLinks = 36;

struct Close {
  void operator()(void* library) const { dlclose(library); }
};

template <typename Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

NvmlFacts nvml_facts(const std::string& pci_bus_id) {
  NvmlFacts facts;
  const std::unique_ptr<void, Close> library(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL));
  if (!library) return facts;
  const auto init = symbol<int()>(library.get(), "nvmlInit_v2");
  const auto shutdown = symbol<int()>(library.get(), "nvmlShutdown");
  const auto driver_version =
      symbol<int(char*, unsigned)>(library.get(), "nvmlSystemGetDriverVersion");
  const auto find_device =
      symbol<int(const char*, Device*)>(library.get(), "nvmlDeviceGetHandleByPciBusId_v2");
  const auto link_state =
      symbol<int(Device, unsigned, int*)>(library.get(), "nvmlDeviceGetNvLinkState");
  if (!init || !shutdown || !driver_version || !find_device || !link_state) return facts;
  if (init() != kSuccess) return facts;

  std::array<char, 96> version = {};
  if (driver_version(version.data(), version.size()) == kSuccess) facts.driver = version.data();

  Device device = nullptr;
  if (find_device(pci_bus_id.c_str(), &device) == kSuccess) {
    int active = 0;
    bool known = true;
    for (unsigned link = 0; link < kMostLinks; ++link) {
      int state = 0;
      const int status = link_state(device, link, &state);
      if (status == kInvalidArgument || status == kNotSupported) break;
      known = known && status == kSuccess;
      active += status == kSuccess && state == 1 ? 1 : 0;
    }
    if (known) facts.active_links = active;
  }
  shutdown();
  return facts;
}

}  // namespace tptrain::comm
