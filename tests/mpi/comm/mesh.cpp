// Ranks become coordinates; axes hold the right ranks in the right order.
#include "base/progress_board.h"
#include "base/text.h"
#include "comm/device_mesh.h"
#include "mpi/comm/suite.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

using comm::DeviceMesh;
using comm::DeviceType;

TEST_CASE("tp varies fastest, and each axis gathers its own ranks in order") {
  const int size = session().size();
  for (int tp = 1; tp <= size; ++tp) {
    if (size % tp != 0) continue;
    DeviceMesh mesh(session(), {.dp_size = size / tp, .tp_size = tp}, DeviceType::cpu);
    CHECK(mesh.dp_rank() == session().rank() / tp);
    CHECK(mesh.tp_rank() == session().rank() % tp);
    CHECK(mesh.tp().rank() == mesh.tp_rank());
    CHECK(mesh.tp().size() == tp);
    CHECK(mesh.tp().name() == "tp");
    CHECK(mesh.dp().rank() == mesh.dp_rank());
    CHECK(mesh.dp().size() == size / tp);
    CHECK(mesh.dp().name() == "dp");
    CHECK(mesh.world().rank() == session().rank());
    CHECK(mesh.world().size() == size);
    CHECK(mesh.world().name() == "world");
    CHECK(mesh.device() == at::Device(at::kCPU));

    const at::Tensor own = at::full({1}, session().rank(), at::kLong);
    at::Tensor row = at::zeros({tp}, at::kLong);
    mesh.tp().all_gather(row, own);
    CHECK(at::equal(row, at::arange(tp, at::kLong) + mesh.dp_rank() * tp));
    at::Tensor column = at::zeros({size / tp}, at::kLong);
    mesh.dp().all_gather(column, own);
    CHECK(at::equal(column, at::arange(size / tp, at::kLong) * tp + mesh.tp_rank()));
  }
}

TEST_CASE("every collective of an axis and of the host is on the session's progress board") {
  const int size = session().size();
  ProgressBoard& board = *session().board();
  for (const comm::CpuTransport transport :
       {comm::CpuTransport::automatic, comm::CpuTransport::mpi}) {
    DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = size}, DeviceType::cpu,
                    {.transport = transport});
    const auto last = [&] {
      const ProgressBoard::Entry entry = board.read();
      return cat(entry.axis, ": ", entry.call, " of ", entry.bytes, " B");
    };
    session().sum(1);
    CHECK(last() == "world: host all_reduce of 8 B");
    CHECK(session().broadcast("abc", 0) == "abc");
    CHECK(last() == (session().rank() == 0 ? "world: host broadcast of 3 B"
                                           : "world: host broadcast of 0 B"));
    session().all_gather("ab");
    CHECK(last() == cat("world: host all_gather of ", 2 * size, " B"));
    session().barrier();
    CHECK(last() == "world: host barrier of 0 B");
    if (size == 1) continue;  // an axis of one rank waits for nobody

    const int64_t before = board.read().collectives;
    at::Tensor piece = at::ones({3});
    at::Tensor whole = at::ones({3 * size});
    mesh.tp().all_reduce(piece, comm::ReduceOp::sum);
    CHECK(last() == "tp: all_reduce of 12 B");
    mesh.tp().all_gather(whole, piece);
    CHECK(last() == cat("tp: all_gather of ", 12 * size, " B"));
    mesh.tp().start_reduce_scatter(piece, whole, comm::ReduceOp::sum)->wait();
    CHECK(last() == cat("tp: reduce_scatter of ", 12 * size, " B"));
    mesh.world().broadcast(piece, 0);
    CHECK(last() == "world: broadcast of 12 B");
    CHECK(board.read().collectives == before + 4);
  }
}

TEST_CASE("a mesh that does not fit the world is an internal error") {
  const auto build = [](int dp, int tp) {
    DeviceMesh mesh(session(), {.dp_size = dp, .tp_size = tp}, DeviceType::cpu);
  };
  CHECK_THROWS_AS(build(session().size() + 1, 1), InternalError);
  CHECK_THROWS_AS(build(0, session().size()), InternalError);
  CHECK_THROWS_AS(build(-1, -session().size()), InternalError);
}

#ifndef TPTRAIN_CUDA
TEST_CASE("a build without CUDA says so") {
  const std::string message = comm_error_of([] {
    DeviceMesh mesh(session(), {.dp_size = session().size(), .tp_size = 1}, DeviceType::cuda);
  });
  CHECK(message ==
        "communication error: device cuda, but this build of tptrain has no CUDA: it must be cpu "
        "in this build.\n  Set train.device to cpu, or build with the cuda preset (cmake --preset "
        "cuda).");
}
#endif

}  // namespace
}  // namespace tptrain::testing
