// How two GPUs of one host reach each other. Internal to comm.
#pragma once

#include <string>

namespace tptrain::device {

/// Whether the GPU `device` of this process, `pci_bus_id`, can map the memory of `other`, which
/// this process may not see. Believed where nobody says no.
bool can_map(int device, const std::string& pci_bus_id, const std::string& other);
/// Whether what they write into each other's memory goes over NVLink, as far as is known.
bool joined_by_nvlink(int device, const std::string& pci_bus_id, const std::string& other);

}  // namespace tptrain::device
