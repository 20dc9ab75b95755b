// What the driver's management library knows of a GPU. It is looked for at run time: a container
// may come without it, and the program must start all the same. Internal to comm.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace tptrain::device {

struct NvmlFacts {
  std::string driver;               // "580.65.06"; "": unknown
  std::optional<int> active_links;  // NVLinks; nothing: unknown
};

/// `pci_bus_id` as CUDA writes it. Never throws: what cannot be found out stays empty.
NvmlFacts nvml_facts(const std::string& pci_bus_id);

/// What the driver says of the way between two GPUs of this host; nothing: unknown.
struct NvmlPair {
  std::optional<bool> reads;   // one can map the other's memory
  std::optional<bool> nvlink;  // over NVLink
};
/// As nvml_facts.
NvmlPair nvml_pair(const std::string& pci_bus_id, const std::string& other_pci_bus_id);

/// The library held open for one GPU, to be asked again and again. Never throws.
class NvmlGpu {
 public:
  explicit NvmlGpu(const std::string& pci_bus_id);
  ~NvmlGpu();
  NvmlGpu(const NvmlGpu&) = delete;

  /// The library and the GPU were found. Without, everything below is 0 or nothing.
  bool known() const { return device_ != nullptr; }
  double watts() const;
  double limit_watts() const;  // that is enforced
  /// Since the driver was loaded.
  std::optional<double> energy_millijoules() const;
  int clock_mhz(int clock) const;  // nvmlClockType_t
  int most_clock_mhz(int clock) const;
  unsigned long long clock_event_reasons() const;  // nvmlClocksEventReasons, bits

 private:
  std::shared_ptr<void> library_;
  void* device_ = nullptr;
};

}  // namespace tptrain::device
