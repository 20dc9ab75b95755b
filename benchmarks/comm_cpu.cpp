// What a collective of CPU tensors costs, through shared memory and through MPI, on ranks of one
// host:
//   mpirun --oversubscribe -n 4 bench_comm_cpu
// Prints one row a size and collective: the median time of a call in microseconds, and the ratio.
// Sizes are of the full tensor. The barrier before each call is part of neither time.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "comm/device_mesh.h"

namespace {

using namespace tptrain::comm;
using Clock = std::chrono::steady_clock;

// Calls in a row, as in a training step: [median over `repeats` batches of `calls`] microseconds a
// call, of the slowest rank.
double microseconds(MpiSession& session, int calls, const std::function<void()>& collective) {
  constexpr int kRepeats = 9;
  collective();
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    session.barrier();
    const auto begin = Clock::now();
    for (int c = 0; c < calls; ++c) collective();
    const std::chrono::duration<double, std::micro> taken = Clock::now() - begin;
    times.push_back(static_cast<double>(session.max(static_cast<int64_t>(taken.count() * 1000))) /
                    1000 / calls);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void run(MpiSession& session, int64_t slot_bytes) {
  const MeshShape row{.dp_size = 1, .tp_size = session.size()};
  CpuOptions shared_options;
  if (slot_bytes > 0) shared_options.slot_bytes = slot_bytes;
  DeviceMesh shared(session, row, DeviceType::cpu, shared_options);
  DeviceMesh mpi(session, row, DeviceType::cpu, {.transport = CpuTransport::mpi});
  const bool prints = session.rank() == 0;
  if (prints) {
    std::printf("%d ranks; shared: %s, slots of %lld KiB; microseconds a call\n", session.size(),
                shared.transport().c_str(),
                static_cast<long long>(shared_options.slot_bytes >> 10));
    std::printf("%-16s %10s %10s %10s %8s\n", "collective", "KiB", "shared", "MPI", "ratio");
  }
  for (const int64_t kib : {4, 64, 2048, 16384}) {
    const int64_t piece = kib * 256 / session.size();  // fp32 elements
    at::Tensor whole = at::zeros({piece * session.size()}, at::kFloat);
    at::Tensor part = at::zeros({piece}, at::kFloat);
    const int calls = kib <= 64 ? 200 : kib <= 2048 ? 20 : 3;
    const auto row_of = [&](const char* name, const auto& call) {
      const double with_shared = microseconds(session, calls, [&] { call(shared.tp()); });
      const double with_mpi = microseconds(session, calls, [&] { call(mpi.tp()); });
      if (!prints) return;
      std::printf("%-16s %10lld %10.1f %10.1f %8.2f\n", name, static_cast<long long>(kib),
                  with_shared, with_mpi, with_mpi / with_shared);
      std::fflush(stdout);
    };
    row_of("all_reduce", [&](Communicator& tp) { tp.all_reduce(whole, ReduceOp::sum); });
    row_of("reduce_scatter",
           [&](Communicator& tp) { tp.reduce_scatter(part, whole, ReduceOp::sum); });
    row_of("all_gather", [&](Communicator& tp) { tp.all_gather(whole, part); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  MpiSession session(&argc, &argv);
  run(session, argc > 1 ? std::stoll(argv[1]) << 10 : 0);  // optional: KiB a slot
  return 0;
}
