// What comm does where nobody else is there: the axis of one rank, the planning axis, GPU rules,
// the picture of the mesh.
#include <ATen/ATen.h>

#include <string>

#include "base/error.h"
#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/mesh_picture.h"
#include "device/gpu_assignment.h"
#include "mpi/comm/suite.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using comm::DeviceType;
using comm::mesh_picture;

TEST_CASE("the axis of one rank passes the suite of all communicators") {
  const auto single = comm::single_rank_communicator("tp");
  check_everything(*single, at::Device(at::kCPU));
  CHECK(single->rank() == 0);
  CHECK(single->size() == 1);
  CHECK(single->name() == "tp");
}

TEST_CASE("a planning communicator has a place and refuses every collective") {
  const auto plan = comm::planning_communicator("tp", 3, 8);
  CHECK(plan->rank() == 3);
  CHECK(plan->size() == 8);
  at::Tensor x = at::zeros({8}, at::kFloat);
  CHECK_THROWS_AS(plan->all_reduce(x, ReduceOp::sum), InternalError);
  CHECK_THROWS_AS(plan->reduce_scatter(x, x, ReduceOp::sum), InternalError);
  CHECK_THROWS_AS(plan->all_gather(x, x), InternalError);
  CHECK_THROWS_AS(plan->broadcast(x, 0), InternalError);
  CHECK_THROWS_AS(plan->all_to_all(x, x, std::vector<int64_t>(64, 1)), InternalError);
  CHECK_THROWS_WITH(plan->barrier(),
                    "internal error: tp rank 3/8: barrier on a planning communicator: it must only "
                    "lay out a model, never run it.");
}

TEST_CASE("a group of one agrees with itself") {
  comm::SingleRank alone;
  comm::agree(alone, [] {});
  try {
    comm::agree(alone, [] { throw DataError(problem("no tokens")); });
    FAIL("the error was lost");
  } catch (const Error& error) {
    CHECK(std::string(error.what()) == "data error: no tokens.");
    CHECK(error.agreed());
  }
}

TEST_CASE("fewer GPUs than ranks is an error that counts both") {
  CHECK(device::gpu_of_rank(3, 4, 4) == 3);
  CHECK(device::gpu_of_rank(1, 2, 8) == 1);
  const std::string remedy =
      "it must be one GPU a rank.\n  Start fewer ranks on each host, check CUDA_VISIBLE_DEVICES, "
      "or "
      "set train.device to cpu.";
  CHECK(comm_error_of([] { device::gpu_of_rank(0, 4, 2); }) ==
        "communication error: device mesh: 4 ranks on this host but 2 GPUs: " + remedy);
  CHECK(comm_error_of([] { device::gpu_of_rank(0, 1, 0); }) ==
        "communication error: device mesh: 1 rank on this host but 0 GPUs: " + remedy);
}

TEST_CASE("a rank that is shown one GPU alone takes it") {
  CHECK(device::gpu_of_rank(3, 4, 1) == 0);
  CHECK(device::gpu_of_rank(0, 1, 1) == 0);
}

TEST_CASE("two ranks on one GPU is an error that names both") {
  device::check_gpus_distinct({"a", "b", "c"});
  const std::string message = comm_error_of([] {
    device::check_gpus_distinct({"a", "b", "c", "b"});
  });
  CHECK(
      message.rfind("communication error: device mesh: ranks 1 and 3 hold the same GPU: it must be "
                    "one GPU a rank.\n  Start no more ranks on a host than it has GPUs",
                    0) == 0);
}

TEST_CASE("the mesh is drawn, a row a dp rank") {
  CHECK(mesh_picture({.dp_size = 2, .tp_size = 2}, DeviceType::cpu) ==
        "device mesh: dp 2 x tp 2, 4 ranks on cpu\n"
        "          tp 0     tp 1\n"
        "  dp 0    rank 0   rank 1   <- same data, sharded model\n"
        "  dp 1    rank 2   rank 3\n"
        "            |        |\n"
        "          gradients are summed down each column");
  CHECK(mesh_picture({.dp_size = 1, .tp_size = 1}, DeviceType::cuda) ==
        "device mesh: dp 1 x tp 1, 1 rank on cuda\n"
        "          tp 0\n"
        "  dp 0    rank 0");
  CHECK(mesh_picture({.dp_size = 1, .tp_size = 3}, DeviceType::cuda) ==
        "device mesh: dp 1 x tp 3, 3 ranks on cuda\n"
        "          tp 0     tp 1     tp 2\n"
        "  dp 0    rank 0   rank 1   rank 2   <- same data, sharded model");
}

TEST_CASE("the picture names the hosts, row by row where there are several") {
  CHECK(mesh_picture({.dp_size = 2, .tp_size = 1}, DeviceType::cpu, {"a", "a"}) ==
        "device mesh: dp 2 x tp 1, 2 ranks on cpu, host a\n"
        "          tp 0\n"
        "  dp 0    rank 0\n"
        "  dp 1    rank 1\n"
        "            |\n"
        "          gradients are summed down each column");
  CHECK(mesh_picture({.dp_size = 2, .tp_size = 2}, DeviceType::cpu, {"a", "a", "b", "c"}) ==
        "device mesh: dp 2 x tp 2, 4 ranks on cpu, 3 hosts\n"
        "          tp 0     tp 1\n"
        "  dp 0    rank 0   rank 1   on a  <- same data, sharded model\n"
        "  dp 1    rank 2   rank 3   on b and c\n"
        "            |        |\n"
        "          gradients are summed down each column");
}

TEST_CASE("a large mesh is drawn with its middle left out") {
  CHECK(
      mesh_picture({.dp_size = 12, .tp_size = 10}, DeviceType::cuda) ==
      "device mesh: dp 12 x tp 10, 120 ranks on cuda\n"
      "           tp 0       tp 1       tp 2       tp 3       tp 4       tp 5       ...   tp 9\n"
      "  dp 0     rank 0     rank 1     rank 2     rank 3     rank 4     rank 5     ...   rank 9   "
      "  "
      "<- same data, sharded model\n"
      "  dp 1     rank 10    rank 11    rank 12    rank 13    rank 14    rank 15    ...   rank 19\n"
      "  dp 2     rank 20    rank 21    rank 22    rank 23    rank 24    rank 25    ...   rank 29\n"
      "  dp 3     rank 30    rank 31    rank 32    rank 33    rank 34    rank 35    ...   rank 39\n"
      "  dp 4     rank 40    rank 41    rank 42    rank 43    rank 44    rank 45    ...   rank 49\n"
      "  dp 5     rank 50    rank 51    rank 52    rank 53    rank 54    rank 55    ...   rank 59\n"
      "  ...      ...        ...        ...        ...        ...        ...        ...   ...\n"
      "  dp 11    rank 110   rank 111   rank 112   rank 113   rank 114   rank 115   ...   rank "
      "119\n"
      "             |          |          |          |          |          |                |\n"
      "           gradients are summed down each column");
}

}  // namespace
}  // namespace tptrain::testing
