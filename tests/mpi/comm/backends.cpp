// The communicators of the mesh, over each transport of CPU tensors, on whatever ranks this runs
// with.
#include "comm/device_mesh.h"
#include "mpi/comm/suite.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

using comm::CpuOptions;
using comm::CpuTransport;
using comm::DeviceMesh;
using comm::DeviceType;

// All shapes dp x tp of this world.
std::vector<comm::MeshShape> shapes() {
  std::vector<comm::MeshShape> result;
  for (int tp = 1; tp <= session().size(); ++tp) {
    if (session().size() % tp == 0) {
      result.push_back({.dp_size = session().size() / tp, .tp_size = tp});
    }
  }
  return result;
}

comm::MeshShape one_row() { return {.dp_size = 1, .tp_size = session().size()}; }

std::string carried_by(const std::string& transport) {
  return session().size() == 1 ? "none (one rank)" : transport;
}

void check_tp_of_one_row(const CpuOptions& options, const std::string& transport) {
  DeviceMesh mesh(session(), one_row(), DeviceType::cpu, options);
  CHECK(mesh.transport() == carried_by(transport));
  check_everything(mesh.tp(), mesh.device());
}

TEST_CASE("shared memory carries every collective on every axis") {
  for (const comm::MeshShape shape : shapes()) {
    DeviceMesh mesh(session(), shape, DeviceType::cpu);
    CHECK(mesh.transport() == carried_by("shared memory"));
    check_everything(mesh.tp(), mesh.device());
    check_everything(mesh.dp(), mesh.device());
    if (shape.tp_size == 1)
      check_everything(mesh.world(), mesh.device());  // the same in each shape
  }
}

TEST_CASE("shared memory carries tensors many times its slots") {
  check_tp_of_one_row({.slot_bytes = 4096}, "shared memory");
}

TEST_CASE("MPI carries every collective") {
  check_tp_of_one_row({.transport = CpuTransport::mpi}, "MPI (as requested)");
}

TEST_CASE("MPI carries tensors in rounds where one call cannot count them") {
  check_tp_of_one_row({.transport = CpuTransport::mpi, .max_elements_per_call = 1000},
                      "MPI (as requested)");
}

TEST_CASE("without room for shared memory the mesh falls back to MPI and says why", "[ranks:2+]") {
  // 2^58 bytes a slot: no machine has room for that.
  DeviceMesh mesh(session(), one_row(), DeviceType::cpu, {.slot_bytes = int64_t{1} << 58});
  CHECK(mesh.transport().rfind("MPI (no shared memory, rank 0: reserving ", 0) == 0);
  check_all_reduce(mesh.tp(), mesh.device());
}

TEST_CASE("calls that differ between ranks are an error on every rank, and harmless afterwards",
          "[ranks:2+]") {
  DeviceMesh mesh(session(), one_row(), DeviceType::cpu);
  comm::Communicator& tp = mesh.tp();
  const bool last = tp.rank() == tp.size() - 1;
  const std::string who = "communication error: tp: rank " + std::to_string(tp.size() - 1);

  at::Tensor unlike = at::zeros({last ? 8 : 7}, at::kFloat);
  CHECK(comm_error_of([&] { tp.all_reduce(unlike, ReduceOp::sum); })
            .rfind(who + " calls all_reduce of 32 bytes of fp32 (sum): it must call what rank 0 of "
                         "the axis calls, all_reduce of 28 bytes of fp32 (sum).",
                   0) == 0);
  at::Tensor x = at::ones({7}, at::kFloat);
  CHECK(comm_error_of([&] { last ? tp.barrier() : tp.broadcast(x, 0); })
            .rfind(who + " calls barrier: it must call what rank 0 of the axis calls, broadcast of "
                         "28 bytes from rank 0.",
                   0) == 0);
  tp.all_reduce(x, ReduceOp::sum);
  CHECK(at::all(x == tp.size()).item<bool>());
}

// The axis of one rank sends nothing, from anywhere.
TEST_CASE("a tensor on another device is refused", "[ranks:2+]") {
  DeviceMesh mesh(session(), {.dp_size = session().size(), .tp_size = 1}, DeviceType::cpu);
  at::Tensor meta = at::zeros({4}, at::TensorOptions(at::kFloat).device(at::kMeta));
  CHECK(comm_error_of([&] { mesh.dp().all_reduce(meta, ReduceOp::sum); }) ==
        "communication error: dp: all_reduce: tensor is on meta: it must be on cpu, this axis's "
        "device.");
}

}  // namespace
}  // namespace tptrain::testing
