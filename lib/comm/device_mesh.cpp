#include "comm/device_mesh.h"

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/cpu_communicator.h"
#include "comm/cuda_backend.h"
#include "comm/mpi_session_impl.h"

namespace tptrain::comm {

namespace {

// One axis of the mesh: the ranks on it, and what moves tensors between them.
struct Axis {
  std::unique_ptr<MpiGroup> group;
  std::unique_ptr<Communicator> communicator;  // goes before the group it uses
};

}  // namespace

PeerCopies peer_copies(const std::string& setting) {
  return setting == "off" ? PeerCopies::off : PeerCopies::automatic;
}

struct DeviceMesh::Impl {
  MeshShape shape;
  int dp_rank = 0;
  int tp_rank = 0;
  DeviceType type = DeviceType::cpu;
  at::Device device = at::kCPU;
  std::string transport = "none (one rank)";
  Axis tp;
  Axis dp;
  Axis world;

  AxisCopies copies;
  std::vector<std::string> copied_axes;     // go by direct copies
  std::vector<std::string> why_not_copied;  // "tp: why"

  Axis make_axis(MpiSession& session, MPI_Comm parent, std::string name, int color,
                 const CpuOptions& cpu);
  std::unique_ptr<Communicator> cuda_communicator(ControlGroup& group, std::string name);
};

std::unique_ptr<Communicator> DeviceMesh::Impl::cuda_communicator(ControlGroup& group,
                                                                  std::string name) {
  const bool wanted = (name == "tp" && copies.tp == PeerCopies::automatic) ||
                      (name == "dp" && copies.dp == PeerCopies::automatic);
  std::unique_ptr<PeerExchange> exchange;
  if (wanted) {
    PeerExchangeResult peers = peer_exchange(group, name, device);
    exchange = std::move(peers.exchange);
    if (exchange) {
      copied_axes.push_back(name);
    } else {
      why_not_copied.push_back(cat(name, ": ", peers.why_not));
    }
  }
  transport = "NCCL";
  if (!copied_axes.empty()) transport += cat("; direct copies over ", join(copied_axes, " and "));
  for (const std::string& reason : why_not_copied) transport += cat("; none over ", reason);
  return nccl_communicator(group, std::move(name), device, std::move(exchange));
}

// Ranks of one color share the axis, in the order of the world.
Axis DeviceMesh::Impl::make_axis(MpiSession& session, MPI_Comm parent, std::string name, int color,
                                 const CpuOptions& cpu) {
  MPI_Comm split = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(parent, color, session.rank(), &split), "MPI_Comm_split", name);
  Axis axis{std::make_unique<MpiGroup>(split, name, session.board()), nullptr};
  if (axis.group->size() == 1) {
    axis.communicator = single_rank_communicator(std::move(name));
  } else if (type == DeviceType::cuda) {
    axis.communicator = cuda_communicator(*axis.group, std::move(name));
  } else {
    CpuBackend backend = cpu_communicator(*axis.group, session.local_size(), cpu);
    axis.communicator = std::move(backend.communicator);
    transport = std::move(backend.transport);
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
  if (device == DeviceType::cuda) impl_->device = bind_gpu(session);

  const MPI_Comm all = session.impl_->world->handle();
  impl_->tp = impl_->make_axis(session, all, "tp", impl_->dp_rank, cpu);
  impl_->dp = impl_->make_axis(session, all, "dp", impl_->tp_rank, cpu);
  impl_->world = impl_->make_axis(session, all, "world", 0, cpu);
}

DeviceMesh::~DeviceMesh() = default;

int DeviceMesh::dp_rank() const { return impl_->dp_rank; }
int DeviceMesh::tp_rank() const { return impl_->tp_rank; }
MeshShape DeviceMesh::shape() const { return impl_->shape; }
DeviceType DeviceMesh::device_type() const { return impl_->type; }
at::Device DeviceMesh::device() const { return impl_->device; }
const std::string& DeviceMesh::transport() const { return impl_->transport; }
Communicator& DeviceMesh::tp() { return *impl_->tp.communicator; }
Communicator& DeviceMesh::dp() { return *impl_->dp.communicator; }
Communicator& DeviceMesh::world() { return *impl_->world.communicator; }

}  // namespace tptrain::comm
