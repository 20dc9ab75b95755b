// Not a test by itself: rank 1 never enters a collective that the others wait for on the GPU, or,
// with the argument "fails", ends with an error while its pushes wait for a rank that never comes;
// under a watchdog of 3 s. Run by jobs.cpp.
#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/watchdog.h"
#include "comm/device_mesh.h"
#include "device/gpu_environment.h"

namespace tptrain {
namespace {

comm::DeviceMesh mesh_over_dp(comm::MpiSession& session) {
  return comm::DeviceMesh(session, {.dp_size = session.size(), .tp_size = 1},
                          comm::DeviceType::cuda);
}

int never_come(comm::MpiSession& session) {
  comm::DeviceMesh mesh = mesh_over_dp(session);
  at::Tensor tensor = at::ones({1 << 20}, at::TensorOptions(at::kFloat).device(mesh.device()));
  mesh.dp().all_reduce(tensor, comm::ReduceOp::sum);
  session.board()->enter("waiting for the first sum", 1);
  if (tensor[0].item<float>() != static_cast<float>(session.size())) return 1;
  if (session.rank() == 1) std::this_thread::sleep_for(std::chrono::minutes(2));
  mesh.dp().all_reduce(tensor, comm::ReduceOp::sum);
  session.board()->enter("waiting for the second sum", 2);
  return tensor[0].item<float>() > 0 ? 0 : 1;  // blocks in the driver
}

void fail(comm::MpiSession& session) {
  comm::DeviceMesh mesh = mesh_over_dp(session);
  const at::Tensor own = at::ones({1 << 26}, at::TensorOptions(at::kFloat).device(mesh.device()));
  at::Tensor whole = at::empty({own.numel() * session.size()}, own.options());
  mesh.dp().start_all_gather(whole, own)->wait();
  if (whole.sum().item<double>() != static_cast<double>(whole.numel())) return;
  if (session.rank() != 1) std::this_thread::sleep_for(std::chrono::minutes(2));
  const auto gathering = mesh.dp().start_all_gather(whole, own);
  throw ConfigError(problem("an error of one rank alone"));
}

int run(comm::MpiSession& session, std::string_view mode) {
  if (mode != "fails") return never_come(session);
  try {
    fail(session);
  } catch (const ConfigError& error) {  // as the program does, behind the mesh's end
    std::fprintf(stderr, "[rank %d] %s\n", session.rank(), error.what());
    session.abort(static_cast<int>(error.code()));
  }
  return 1;
}

}  // namespace
}  // namespace tptrain

int main(int argc, char** argv) {
  using namespace tptrain;
  device::ask_for_queues();  // before anything can touch the driver, as the program does
  comm::MpiSession session(&argc, &argv);
  const Watchdog watchdog(*session.board(),
                          {.limit = std::chrono::seconds(3), .rank = session.rank()});
  return run(session, argc > 1 ? argv[1] : "");
}
