// The communicator of CPU tensors: through shared memory where all ranks of the axis are on one
// host, else through MPI. Internal to comm.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/device_mesh.h"
#include "comm/mpi_group.h"
#include "comm/shared_memory.h"

namespace tptrain::comm {

struct CpuBackend {
  std::unique_ptr<Communicator> communicator;
  std::string transport;  // "shared memory", or "MPI" and why
};

/// Collective over `group`, which must outlive the result.
CpuBackend cpu_communicator(MpiGroup& group, Waiting waiting, const CpuOptions& options);

}  // namespace tptrain::comm
