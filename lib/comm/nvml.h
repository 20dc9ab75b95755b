// What the driver's management library knows of a GPU. It is looked for at run time: a container
// may come without it, and the program must start all the same. Internal to comm.
#pragma once

#include <optional>
#include <string>

namespace tptrain::comm {

struct NvmlFacts {
  std::string driver;               // "580.65.06"; "": unknown
  std::optional<int> active_links;  // NVLinks; nothing: unknown
};

/// `pci_bus_id` as CUDA writes it. Never throws: what cannot be found out stays empty.
NvmlFacts nvml_facts(const std::string& pci_bus_id);

}  // namespace tptrain::comm
