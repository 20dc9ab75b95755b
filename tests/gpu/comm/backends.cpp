// The suite of all communicators over NCCL, and what only a GPU can show: order on streams, capture
// in a graph.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>

#include "comm/cuda_backend.h"
#include "comm/device_mesh.h"
#include "mpi/comm/suite.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

using comm::DeviceMesh;
using comm::DeviceType;

// One mesh for all tests: NCCL takes seconds to start. NCCL also with one rank, where the mesh
// would not need it.
struct Fixture {
  DeviceMesh mesh{session(), {.dp_size = 1, .tp_size = session().size()}, DeviceType::cuda};
  at::Device device = mesh.device();
  std::unique_ptr<comm::Communicator> nccl = comm::nccl_communicator(session(), "tp", device);
};
Fixture*& made() {
  static Fixture* fixture = nullptr;  // deleted by the last test: it must not outlive MPI
  return fixture;
}
Fixture& fixture() {
  if (made() == nullptr) made() = new Fixture;
  return *made();
}

TEST_CASE("NCCL carries every collective") {
  Fixture& f = fixture();
  check_everything(*f.nccl, f.device);
  check_everything(f.mesh.tp(), f.device);
  CHECK(f.mesh.transport() ==
        (session().size() == 1 ? "none (one rank)" : "NCCL; direct copies over tp"));
}

TEST_CASE("each rank holds the GPU of its local rank") {
  CHECK(fixture().device == at::Device(at::kCUDA, session().local_rank()));
}

TEST_CASE("a CPU tensor is refused, naming both devices") {
  at::Tensor x = at::zeros({4}, at::kFloat);
  CHECK(comm_error_of([&] { fixture().nccl->all_reduce(x, ReduceOp::sum); }) ==
        "communication error: tp: all_reduce: tensor is on cpu: it must be on " +
            fixture().device.str() + ", this axis's device.");
}

TEST_CASE("a collective comes after what its stream has queued and before what follows") {
  Fixture& f = fixture();
  const c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool(false, f.device.index());
  const c10::cuda::CUDAStreamGuard guard(side);
  // Long enough that a collective which did not wait would read the zeros.
  at::Tensor a = at::full({4096, 4096}, 1.0 / 4096, at::TensorOptions(at::kFloat).device(f.device));
  at::Tensor x = at::zeros({4096, 4096}, a.options());
  at::Tensor product = a;
  for (int i = 0; i < 20; ++i) product = at::mm(product, a);
  x.copy_(product.mul_(4096).round_());  // ones
  f.nccl->all_reduce(x, ReduceOp::sum);
  const at::Tensor after = x + 1;
  side.synchronize();
  CHECK(at::all(after == f.nccl->size() + 1).item<bool>());
}

TEST_CASE("a started collective reads what came before it and runs beside what follows") {
  Fixture& f = fixture();
  const c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool(false, f.device.index());
  const c10::cuda::CUDAStreamGuard guard(side);
  const int64_t n = 1 << 22;
  const int ranks = f.nccl->size();
  at::Tensor a = at::full({4096, 4096}, 1.0 / 4096, at::TensorOptions(at::kFloat).device(f.device));
  at::Tensor piece = at::zeros({n}, a.options());
  at::Tensor all = at::zeros({n * ranks}, a.options());
  at::Tensor product = a;
  for (int i = 0; i < 20; ++i) product = at::mm(product, a);
  piece.copy_(product.view({-1}).narrow(0, 0, n).mul(4096).round_());  // ones, late
  const auto gathering = f.nccl->start_all_gather(all, piece);
  for (int i = 0; i < 20; ++i) product = at::mm(product, a);  // not behind the gather
  gathering->wait();
  at::Tensor sum = at::zeros({n}, a.options());
  const auto scattering = f.nccl->start_reduce_scatter(sum, all, comm::ReduceOp::sum);
  scattering->wait();
  const at::Tensor after = sum + 1;
  side.synchronize();
  CHECK(at::all(all == 1).item<bool>());
  CHECK(at::all(after == ranks + 1).item<bool>());
}

TEST_CASE("collectives are captured in a CUDA graph and replayed") {
  Fixture& f = fixture();
  const c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool(false, f.device.index());
  const c10::cuda::CUDAStreamGuard guard(side);
  at::Tensor x = at::zeros({1000}, at::TensorOptions(at::kFloat).device(f.device));
  at::Tensor all = at::zeros({1000 * f.nccl->size()}, x.options());
  f.nccl->all_reduce(x, ReduceOp::sum);  // NCCL connects on first use, outside of the capture
  f.nccl->all_gather(all, x);
  side.synchronize();

  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  f.nccl->all_reduce(x, ReduceOp::sum);
  x.add_(1);
  f.nccl->start_all_gather(all, x)->wait();
  graph.capture_end();
  x.fill_(1);
  for (int i = 0; i < 3; ++i) graph.replay();
  side.synchronize();
  double expected = 1;
  for (int i = 0; i < 3; ++i) expected = expected * f.nccl->size() + 1;
  CHECK(at::all(all == expected).item<bool>());
}

TEST_CASE("NCCL is taken down while all ranks are there") {
  fixture().nccl->barrier();
  delete std::exchange(made(), nullptr);
  CHECK(made() == nullptr);
}

}  // namespace
}  // namespace tptrain::testing
