// The faulty communicator of the mutation tests does exactly the wrong it is asked for, and nothing
// else.
#include "comm/device_mesh.h"
#include "mpi/comm/suite.h"
#include "support/faulty_communicator.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

using comm::DeviceMesh;
using comm::DeviceType;

struct Fixture {
  DeviceMesh mesh{session(), {.dp_size = 1, .tp_size = session().size()}, DeviceType::cpu};
  comm::Communicator& real = mesh.tp();
  int size = real.size();
  at::Tensor ones = at::ones({4}, at::kFloat);

  bool all_equal(const at::Tensor& tensor, double value) const {
    return at::all(tensor == value).item<bool>();
  }
};

TEST_CASE("without a fault the faulty communicator is a communicator") {
  Fixture f;
  FaultyCommunicator comm(f.real, {});
  check_all_reduce(comm, f.mesh.device());
  check_reduce_scatter(comm, f.mesh.device());
  check_all_gather(comm, f.mesh.device());
  check_broadcast(comm, f.mesh.device());
  check_started(comm, f.mesh.device());
  check_counters(comm, f.mesh.device());
  CHECK(comm.strikes() == 0);
}

TEST_CASE("faults of all_reduce") {
  Fixture f;
  const auto reduced_with = [&](const Fault& fault) {
    FaultyCommunicator comm(f.real, fault);
    at::Tensor x = f.ones.clone();
    comm.all_reduce(x, ReduceOp::sum);
    CHECK(comm.strikes() == 1);
    return x;
  };
  CHECK(f.all_equal(reduced_with(Fault::skip_all_reduce()), 1));
  CHECK(f.all_equal(reduced_with(Fault::twice_all_reduce()), f.size * f.size));
  CHECK(f.all_equal(reduced_with(Fault::scale_all_reduce(0.5)), 0.5 * f.size));
  const at::Tensor perturbed = reduced_with(Fault::perturb_all_reduce(0.25));
  CHECK(perturbed[0].item<float>() == f.size + 0.25f);
  CHECK(f.all_equal(perturbed.narrow(0, 1, 3), f.size));
}

TEST_CASE("the n-th all_reduce alone is struck") {
  Fixture f;
  FaultyCommunicator skips(f.real, Fault::skip_nth_all_reduce(2));
  FaultyCommunicator scales(f.real, Fault::scale_nth_all_reduce(1, 3));
  for (int i = 0; i < 5; ++i) {
    at::Tensor x = f.ones.clone();
    skips.all_reduce(x, ReduceOp::sum);
    CHECK(f.all_equal(x, i == 2 ? 1 : f.size));
    at::Tensor y = f.ones.clone();
    scales.all_reduce(y, ReduceOp::sum);
    CHECK(f.all_equal(y, i == 1 ? 3 * f.size : f.size));
  }
  CHECK(skips.strikes() == 1);
  CHECK(scales.strikes() == 1);
}

TEST_CASE("faults of the other collectives") {
  Fixture f;
  const at::Tensor whole = at::ones({4 * f.size}, at::kFloat);
  at::Tensor piece = at::zeros({4}, at::kFloat);
  FaultyCommunicator(f.real, Fault::skip_reduce_scatter())
      .reduce_scatter(piece, whole, ReduceOp::sum);
  CHECK(f.all_equal(piece, 1));
  FaultyCommunicator(f.real, Fault::scale_reduce_scatter(2))
      .reduce_scatter(piece, whole, ReduceOp::sum);
  CHECK(f.all_equal(piece, 2 * f.size));

  at::Tensor gathered = at::zeros({4 * f.size}, at::kFloat);
  FaultyCommunicator(f.real, Fault::skip_all_gather()).all_gather(gathered, f.ones);
  CHECK(gathered.sum().item<float>() == 4);
  CHECK(f.all_equal(gathered.narrow(0, 4 * f.real.rank(), 4), 1));
  FaultyCommunicator(f.real, Fault::perturb_all_gather(1)).all_gather(gathered, f.ones);
  CHECK(gathered[0].item<float>() == 2);

  at::Tensor own = at::full({4}, f.real.rank(), at::kFloat);
  FaultyCommunicator(f.real, Fault::skip_broadcast()).broadcast(own, 0);
  CHECK(f.all_equal(own, f.real.rank()));
}

TEST_CASE("a collective that is only started is struck like its blocking form") {
  Fixture f;
  const at::Tensor whole = at::ones({4 * f.size}, at::kFloat);
  at::Tensor piece = at::zeros({4}, at::kFloat);
  at::Tensor gathered = at::zeros({4 * f.size}, at::kFloat);
  FaultyCommunicator scatters(f.real, Fault::skip_reduce_scatter());
  scatters.start_reduce_scatter(piece, whole, ReduceOp::sum)->wait();
  CHECK(f.all_equal(piece, 1));
  scatters.start_all_gather(gathered, f.ones)->wait();
  CHECK(f.all_equal(gathered, 1));
  CHECK(scatters.strikes() == 1);

  FaultyCommunicator gathers(f.real, Fault::perturb_all_gather(1));
  gathers.start_reduce_scatter(piece, whole, ReduceOp::sum)->wait();
  CHECK(f.all_equal(piece, f.size));
  gathers.start_all_gather(gathered, f.ones)->wait();
  CHECK(gathered[0].item<float>() == 2);
  CHECK(gathers.strikes() == 1);
  CHECK(gathers.counters().all_gathers == f.real.counters().all_gathers);
}

}  // namespace
}  // namespace tptrain::testing
