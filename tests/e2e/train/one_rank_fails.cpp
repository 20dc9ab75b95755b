// A job in which rank 2 throws while the others wait for it in a collective; run by
// failing_rank.cpp under mpirun.
#include <cstdio>
#include <thread>

#include "ATen/ATen.h"
#include "base/error.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "job.h"

int main(int argc, char** argv) {
  using namespace tptrain;
  comm::MpiSession session(&argc, &argv);
  return apps::run_job(session, [&] {
    comm::DeviceMesh mesh(session, {.dp_size = session.size(), .tp_size = 1},
                          comm::DeviceType::cpu);
    at::Tensor tensor = at::ones({1024});
    mesh.world().all_reduce(tensor, comm::ReduceOp::sum);
    if (session.rank() == 2)
      throw DataError(problem("the text of rank 2 is spoilt").at("step 57").remedy("Repair it."));
    mesh.world().all_reduce(tensor, comm::ReduceOp::sum);
    return ExitCode::done;
  });
}
