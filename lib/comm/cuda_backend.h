// What comm needs of a GPU build. One of two files implements it: nccl_communicator.cpp, or
// cuda_backend_absent.cpp in a build without CUDA. Internal to comm.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/mpi_session.h"
#include "comm/peer_exchange.h"

namespace tptrain::comm {

struct BoundGpu {
  at::Device device;
  std::vector<std::string> host_gpus;  // PCI bus ids of the ranks of this host, by local rank
};
/// Binds this process to its GPU (device::gpu_of_rank). Collective over the session. Throws, agreed
/// on every rank, where a host has fewer GPUs than ranks, where two ranks would share one GPU, and
/// where this build has no CUDA.
BoundGpu bind_gpu(MpiSession& session);

/// NCCL over the ranks of `group`, which must outlive it and is used here only, on a high-priority
/// stream of its own. Collective. `device` is this process's bound GPU. With `peers` what fits
/// there goes by its copies.
std::unique_ptr<Communicator> nccl_communicator(ControlGroup& group, std::string name,
                                                at::Device device,
                                                std::unique_ptr<PeerExchange> peers = nullptr);

}  // namespace tptrain::comm
