// The communicator of CPU tensors: through shared memory where all ranks of the axis are on one
// host, else through MPI. Internal to comm.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/device_mesh.h"
#include "comm/mpi_group.h"

namespace tptrain::comm {

struct CpuBackend {
  std::unique_ptr<Communicator> communicator;
  std::string transport;  // "shared memory", or "MPI" and why
};

/// Collective over `group`, which must outlive the result. `ranks_on_host`: how many ranks share
/// this host's cores, over all axes.
CpuBackend cpu_communicator(MpiGroup& group, int ranks_on_host, const CpuOptions& options);

}  // namespace tptrain::comm
