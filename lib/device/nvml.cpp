#include "device/nvml.h"

#include <dlfcn.h>

#include <array>
#include <memory>

namespace tptrain::device {

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

constexpr const char* kLibrary = "libnvidia-ml.so.1";

}  // namespace

NvmlFacts nvml_facts(const std::string& pci_bus_id) {
  NvmlFacts facts;
  const std::unique_ptr<void, Close> library(dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL));
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

NvmlPair nvml_pair(const std::string& pci_bus_id, const std::string& other_pci_bus_id) {
  constexpr int kReads = 0;  // nvmlGpuP2PCapsIndex_t
  constexpr int kNvlink = 2;
  NvmlPair pair;
  const std::unique_ptr<void, Close> library(dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL));
  if (!library) return pair;
  const auto init = symbol<int()>(library.get(), "nvmlInit_v2");
  const auto shutdown = symbol<int()>(library.get(), "nvmlShutdown");
  const auto find_device =
      symbol<int(const char*, Device*)>(library.get(), "nvmlDeviceGetHandleByPciBusId_v2");
  const auto status_between =
      symbol<int(Device, Device, int, int*)>(library.get(), "nvmlDeviceGetP2PStatus");
  if (!init || !shutdown || !find_device || !status_between || init() != kSuccess) return pair;
  Device first = nullptr;
  Device second = nullptr;
  if (find_device(pci_bus_id.c_str(), &first) == kSuccess &&
      find_device(other_pci_bus_id.c_str(), &second) == kSuccess) {
    const auto holds = [&](int what) -> std::optional<bool> {
      int status = 0;  // nvmlGpuP2PStatus_t: 0 is yes, all else a reason why not
      if (status_between(first, second, what, &status) != kSuccess) return std::nullopt;
      return status == 0;
    };
    pair = {.reads = holds(kReads), .nvlink = holds(kNvlink)};
  }
  shutdown();
  return pair;
}

NvmlGpu::NvmlGpu(const std::string& pci_bus_id) {
  void* opened = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) return;
  library_ = std::shared_ptr<void>(opened, Close{});
  const auto init = symbol<int()>(opened, "nvmlInit_v2");
  const auto find = symbol<int(const char*, Device*)>(opened, "nvmlDeviceGetHandleByPciBusId_v2");
  if (!init || !find || init() != kSuccess) return;
  Device device = nullptr;
  if (find(pci_bus_id.c_str(), &device) == kSuccess) device_ = device;
}

NvmlGpu::~NvmlGpu() {
  if (!library_) return;
  if (const auto shutdown = symbol<int()>(library_.get(), "nvmlShutdown")) shutdown();
}

namespace {

// What `call` writes for a device; 0 where it is not known.
template <typename Value, typename... Arguments>
std::optional<Value> ask(const std::shared_ptr<void>& library, void* device, const char* call,
                         Arguments... arguments) {
  if (device == nullptr) return std::nullopt;
  const auto function = symbol<int(Device, Arguments..., Value*)>(library.get(), call);
  Value value = {};
  if (!function || function(static_cast<Device>(device), arguments..., &value) != kSuccess)
    return std::nullopt;
  return value;
}

}  // namespace

double NvmlGpu::watts() const {
  return ask<unsigned>(library_, device_, "nvmlDeviceGetPowerUsage").value_or(0) * 1e-3;
}
double NvmlGpu::limit_watts() const {
  return ask<unsigned>(library_, device_, "nvmlDeviceGetEnforcedPowerLimit").value_or(0) * 1e-3;
}
std::optional<double> NvmlGpu::energy_millijoules() const {
  const auto energy =
      ask<unsigned long long>(library_, device_, "nvmlDeviceGetTotalEnergyConsumption");
  if (!energy) return std::nullopt;
  return static_cast<double>(*energy);
}
int NvmlGpu::clock_mhz(int clock) const {
  return static_cast<int>(
      ask<unsigned>(library_, device_, "nvmlDeviceGetClockInfo", clock).value_or(0));
}
int NvmlGpu::most_clock_mhz(int clock) const {
  return static_cast<int>(
      ask<unsigned>(library_, device_, "nvmlDeviceGetMaxClockInfo", clock).value_or(0));
}
unsigned long long NvmlGpu::clock_event_reasons() const {
  // By the name that drivers before 535 have too.
  return ask<unsigned long long>(library_, device_, "nvmlDeviceGetCurrentClocksThrottleReasons")
      .value_or(0);
}

}  // namespace tptrain::device
