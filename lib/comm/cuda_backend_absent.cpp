#include "base/error.h"
#include "comm/cuda_backend.h"
#include "comm/nccl_library.h"
#include "comm/nccl_status.h"

namespace tptrain::comm {

namespace {

[[noreturn]] void refuse() {
  throw CommError(problem("device cuda, but this build of tptrain has no CUDA")
                      .must("be cpu in this build")
                      .remedy("Set train.device to cpu, or build with the cuda preset "
                              "(cmake --preset cuda)."));
}

}  // namespace

BoundGpu bind_gpu(MpiSession&) { refuse(); }

NcclLibrary nccl_library() { return {}; }
std::string nccl_status() { return ""; }

std::unique_ptr<Communicator> nccl_communicator(ControlGroup&, std::string, at::Device,
                                                std::unique_ptr<PeerExchange>) {
  refuse();
}

PeerExchangeResult peer_exchange(ControlGroup&, const std::string&, at::Device, PeerLinks,
                                 const WrapProbe&) {
  refuse();
}

}  // namespace tptrain::comm
