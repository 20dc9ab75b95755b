// Not a test by itself: rank 1 never enters a collective that the others wait for on the GPU, under
// a watchdog of 3 s; run by jobs.cpp.
#include <ATen/ATen.h>

#include <chrono>
#include <thread>

#include "base/watchdog.h"
#include "comm/device_mesh.h"

int main(int argc, char** argv) {
  using namespace tptrain;
  comm::MpiSession session(&argc, &argv);
  const Watchdog watchdog(*session.board(),
                          {.limit = std::chrono::seconds(3), .rank = session.rank()});
  comm::DeviceMesh mesh(session, {.dp_size = session.size(), .tp_size = 1}, comm::DeviceType::cuda);
  at::Tensor tensor = at::ones({1 << 20}, at::TensorOptions(at::kFloat).device(mesh.device()));
  mesh.dp().all_reduce(tensor, comm::ReduceOp::sum);
  session.board()->enter("waiting for the first sum", 1);
  if (tensor[0].item<float>() != static_cast<float>(session.size())) return 1;
  if (session.rank() == 1) std::this_thread::sleep_for(std::chrono::minutes(2));
  mesh.dp().all_reduce(tensor, comm::ReduceOp::sum);
  session.board()->enter("waiting for the second sum", 2);
  return tensor[0].item<float>() > 0 ? 0 : 1;  // blocks in the driver
}
