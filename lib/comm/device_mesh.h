// The grid of ranks, dp x tp: the only place where ranks become coordinates. rank = dp_rank *
// tp_size + tp_rank (tp varies fastest).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/mpi_session.h"

namespace tptrain::comm {

enum class DeviceType { cpu, cuda };

/// How CPU tensors travel. automatic: through shared memory where all ranks of an axis are on one
/// host, else through MPI.
enum class CpuTransport { automatic, mpi };

struct CpuOptions {
  CpuTransport transport = CpuTransport::automatic;
  int64_t max_elements_per_call = int64_t{1}
                                  << 28;  // MPI counts in int: longer tensors go in rounds
  int64_t slot_bytes = int64_t{1} << 19;  // shared memory of a rank, one of two buffers
};

/// Whether an axis goes by direct copies between the GPUs of a host (peer_exchange.h), where a
/// trial shows that they can write each other's memory, or always through NCCL. automatic: over
/// NVLink; on: over PCIe too.
enum class PeerCopies { automatic, on, off };

struct AxisCopies {
  PeerCopies tp = PeerCopies::automatic;
  PeerCopies dp = PeerCopies::automatic;
};

struct MeshShape {
  int dp_size = 1;
  int tp_size = 1;
};

class DeviceMesh {
 public:
  /// Collective over the session. Needs dp_size * tp_size == session.size() (resolve has checked
  /// it; else InternalError). On cuda, binds this process to the GPU of its local rank, or to the
  /// only one it sees, and refuses two ranks on one GPU (by UUID); throws CommError where there are
  /// too few GPUs. The session must outlive the mesh.
  DeviceMesh(MpiSession& session, MeshShape shape, DeviceType device, const CpuOptions& cpu = {},
             const AxisCopies& copies = {});
  ~DeviceMesh();

  int dp_rank() const;
  int tp_rank() const;
  MeshShape shape() const;
  DeviceType device_type() const;
  Communicator& tp();
  Communicator& dp();
  /// All ranks, for small CPU tensors on any device.
  Communicator& world();
  at::Device device() const;
  /// PCI bus ids of the GPUs that the ranks of this host hold, by local rank; none on the CPU.
  const std::vector<std::string>& host_gpus() const;

  /// What carries the tensors: "none (one rank)", "shared memory", "MPI (why not shared memory)",
  /// "NCCL", "NCCL; direct copies over tp and dp", "NCCL; direct copies over tp; none over dp:
  /// why".
  const std::string& transport() const;
  /// What should work and does not, the same on every rank: direct copies that spoil data.
  const std::vector<std::string>& warnings() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::comm
