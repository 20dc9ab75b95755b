// Not a test by itself: rank 1 ends the job with exit code 6 while the others sleep in a collective
// that it never joins. Its CMakeLists checks that mpirun returns 6, which schedulers rely on.
#include <chrono>
#include <cstdio>
#include <thread>

#include "comm/device_mesh.h"

int main(int argc, char** argv) {
  using namespace tptrain::comm;
  MpiSession session(&argc, &argv);
  DeviceMesh mesh(session, {.dp_size = 1, .tp_size = session.size()}, DeviceType::cpu);
  if (mesh.tp().rank() == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // the others are asleep by then
    std::fputs("rank 1 aborts\n", stderr);
    session.abort(6);
  }
  mesh.tp().barrier();
  return 0;
}
