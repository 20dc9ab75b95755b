// The GPUs of this host and the libraries that serve them, found without starting ranks or making
// anything on a GPU: for `tptrain doctor`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tptrain::device {

struct HostGpu {
  std::string name = {};
  int capability = 0;  // 90: 9.0
  int64_t memory_bytes = 0;
  bool runs_this_program = true;
  int mapped_peers = 0;             // other GPUs here whose memory it can map (P2P)
  std::optional<int> nvlinks = {};  // active ones; nothing: unknown
};

struct HostGpus {
  bool cuda_build = false;  // all else is empty where it is not
  std::vector<int> architectures = {};
  int driver_cuda = 0;  // the newest CUDA that the driver serves, 13000: 13.0; 0: no driver
  int runtime_cuda = 0;
  std::string driver = {};  // "580.65.06"; "": unknown
  std::string nccl = {};    // comm/nccl_library.h says these two
  std::string nccl_built = {};
  std::string cudnn = {};
  std::string cudnn_built = {};
  std::vector<HostGpu> gpus = {};
};
/// Never throws: what cannot be found out stays empty.
HostGpus host_gpus();

}  // namespace tptrain::device
