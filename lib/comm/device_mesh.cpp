#include "comm/device_mesh.h"

#include <string>
#include <utility>
#include <vector>

#include "base/background.h"
#include "base/error.h"
#include "base/text.h"
#include "comm/cpu_communicator.h"
#include "comm/cuda_backend.h"
#include "comm/mpi_session_impl.h"
#include "comm/shared_memory.h"

namespace tptrain::comm {

namespace {

// One axis of the mesh: the ranks on it, and what moves tensors between them.
struct Axis {
  std::unique_ptr<MpiGroup> group;
  std::unique_ptr<Communicator> communicator;  // goes before the group it uses
};

}  // namespace

struct DeviceMesh::Impl {
  MeshShape shape;
  int dp_rank = 0;
  int tp_rank = 0;
  DeviceType type = DeviceType::cpu;
  at::Device device = at::kCPU;
  std::string transport = "none (one rank)";
  Waiting waiting = Waiting::on_own_core;
  Axis tp;
  Axis dp;
  Axis world;

  AxisCopies copies;
  std::vector<std::string> copied_axes;     // go by direct copies
  std::vector<std::string> why_not_copied;  // "tp: why"
  std::vector<std::string> warnings;
  std::vector<std::string> host_gpus;

  Axis make_axis(MpiSession& session, MPI_Comm parent, std::string name, int color,
                 DeviceType tensors, const CpuOptions& cpu);
  std::unique_ptr<PeerExchange> exchange_of(MpiSession& session, ControlGroup& group,
                                            const std::string& name, PeerCopies wanted);
  std::unique_ptr<Communicator> cuda_communicator(MpiSession& session, ControlGroup& group,
                                                  std::string name);
};

// All groups of an axis go one way: what they sum must not differ in its last bits.
std::unique_ptr<PeerExchange> DeviceMesh::Impl::exchange_of(MpiSession& session,
                                                            ControlGroup& group,
                                                            const std::string& name,
                                                            PeerCopies wanted) {
  if (wanted == PeerCopies::off) return nullptr;
  PeerExchangeResult peers = peer_exchange(
      group, name, device, wanted == PeerCopies::on ? PeerLinks::any : PeerLinks::nvlink);
  const bool faulty = session.max(peers.faulty ? 1 : 0) != 0;
  std::string why_not;
  for (std::string& of_rank : session.all_gather(peers.why_not)) {
    if (why_not.empty()) why_not = std::move(of_rank);
  }
  if (why_not.empty()) {
    copied_axes.push_back(name);
    return std::move(peers.exchange);
  }
  if (faulty) {
    warnings.push_back(cat(
        "direct copies over ", name, " are not used, NCCL is: ", why_not,
        ". The driver says that these GPUs reach each other's memory; nvidia-smi topo -p2p w, the "
        "IOMMU and access control of PCIe (ACS) are where to look. NCCL may take the same path: "
        "until then NCCL_P2P_DISABLE=1 sends it through the host's memory. parallel.",
        name, "_overlap: off leaves the trial out."));
  }
  why_not_copied.push_back(cat(name, ": ", why_not));
  return nullptr;
}

std::unique_ptr<Communicator> DeviceMesh::Impl::cuda_communicator(MpiSession& session,
                                                                  ControlGroup& group,
                                                                  std::string name) {
  std::unique_ptr<PeerExchange> exchange =
      exchange_of(session, group, name, name == "tp" ? copies.tp : copies.dp);
  transport = "NCCL";
  if (!copied_axes.empty()) transport += cat("; direct copies over ", join(copied_axes, " and "));
  for (const std::string& reason : why_not_copied) transport += cat("; none over ", reason);
  return nccl_communicator(group, std::move(name), device, std::move(exchange));
}

// Ranks of one color share the axis, in the order of the world. `tensors`: where those lie that it
// carries.
Axis DeviceMesh::Impl::make_axis(MpiSession& session, MPI_Comm parent, std::string name, int color,
                                 DeviceType tensors, const CpuOptions& cpu) {
  MPI_Comm split = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(parent, color, session.rank(), &split), "MPI_Comm_split", name);
  Axis axis{std::make_unique<MpiGroup>(split, name, session.board()), nullptr};
  if (axis.group->size() == 1) {
    axis.communicator = single_rank_communicator(std::move(name));
  } else if (tensors == DeviceType::cuda) {
    axis.communicator = cuda_communicator(session, *axis.group, std::move(name));
  } else {
    CpuBackend backend = cpu_communicator(*axis.group, waiting, cpu);
    axis.communicator = std::move(backend.communicator);
    if (type == DeviceType::cpu) transport = std::move(backend.transport);
  }
  return axis;
}

DeviceMesh::DeviceMesh(MpiSession& session, MeshShape shape, DeviceType device,
                       const CpuOptions& cpu, const AxisCopies& copies)
    : impl_(std::make_unique<Impl>()) {
  if (shape.dp_size < 1 || shape.tp_size < 1 || shape.dp_size * shape.tp_size != session.size()) {
    throw InternalError(problem(cat("a mesh of dp ", shape.dp_size, " x tp ", shape.tp_size,
                                    " for ", session.size(), " ranks"))
                            .must("have as many places as there are ranks"));
  }
  impl_->shape = shape;
  impl_->dp_rank = session.rank() / shape.tp_size;
  impl_->tp_rank = session.rank() % shape.tp_size;
  impl_->type = device;
  impl_->copies = copies;
  if (device == DeviceType::cuda) {
    BoundGpu gpu = bind_gpu(session);
    impl_->device = gpu.device;
    impl_->host_gpus = std::move(gpu.host_gpus);
  }

  // Over all axes; ranks may be bound to a core each, so that only together they know.
  const int cores = cores_in_any(session.all_gather_on_host(usable_core_set()));
  if (session.local_size() > cores) impl_->waiting = Waiting::on_shared_core;

  const MPI_Comm all = session.impl_->world->handle();
  impl_->tp = impl_->make_axis(session, all, "tp", impl_->dp_rank, device, cpu);
  impl_->dp = impl_->make_axis(session, all, "dp", impl_->tp_rank, device, cpu);
  impl_->world = impl_->make_axis(session, all, "world", 0, DeviceType::cpu, cpu);
}

DeviceMesh::~DeviceMesh() = default;

int DeviceMesh::dp_rank() const { return impl_->dp_rank; }
int DeviceMesh::tp_rank() const { return impl_->tp_rank; }
MeshShape DeviceMesh::shape() const { return impl_->shape; }
DeviceType DeviceMesh::device_type() const { return impl_->type; }
at::Device DeviceMesh::device() const { return impl_->device; }
const std::string& DeviceMesh::transport() const { return impl_->transport; }
const std::vector<std::string>& DeviceMesh::warnings() const { return impl_->warnings; }
const std::vector<std::string>& DeviceMesh::host_gpus() const { return impl_->host_gpus; }
Communicator& DeviceMesh::tp() { return *impl_->tp.communicator; }
Communicator& DeviceMesh::dp() { return *impl_->dp.communicator; }
Communicator& DeviceMesh::world() { return *impl_->world.communicator; }

}  // namespace tptrain::comm
