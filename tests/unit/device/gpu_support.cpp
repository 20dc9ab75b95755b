// The message for a GPU or a driver that this program cannot run on, with its facts made up.
#include "device/gpu_support.h"

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::device {
namespace {

using testing::message_of;

TEST_CASE("a GPU that the program holds no code for is refused with the way to build it") {
  check_gpu_supported({.name = "NVIDIA H200", .capability = 90}, {80, 90});
  const auto refused = message_of<ConfigError>([] {
    check_gpu_supported({.name = "NVIDIA L40S", .capability = 89, .runs_this_program = false},
                        {90});
  });
  CHECK(
      refused ==
      "config error: device mesh: the GPU NVIDIA L40S has capability 8.9: it must be one that this "
      "program holds code for: 9.0.\n  Build it for this GPU: cmake --preset cuda "
      "-DCMAKE_CUDA_ARCHITECTURES=89 && cmake --build --preset cuda --target tptrain.");
}

TEST_CASE("a GPU that is too old is refused, whatever the program holds") {
  const auto refused = message_of<ConfigError>([] {
    check_gpu_supported({.name = "Tesla V100", .capability = 70}, {80, 90, 100, 120});
  });
  CHECK(
      refused ==
      "config error: device mesh: the GPU Tesla V100 has capability 7.0: it must be at least 8.0, "
      "as A100, A10, L4, RTX 30 and whatever came after them are.\n  Choose another GPU with "
      "CUDA_VISIBLE_DEVICES, or set train.device to cpu.");
  CHECK_THROWS_AS(check_gpu_supported({.name = "T4", .capability = 75}, {}), ConfigError);
}

TEST_CASE("a driver of an older CUDA is refused, of the same major version or a newer one not") {
  check_driver(13000, 13000, "580.65.06");
  check_driver(13000, 13010, "580.65.06");
  check_driver(14000, 13000, "");
  const auto old = message_of<ConfigError>([] { check_driver(12080, 13000, "570.86.10"); });
  CHECK(
      old ==
      "config error: device mesh: the NVIDIA driver 570.86.10 serves CUDA up to 12.8: it must "
      "serve CUDA 13.0, which this program uses.\n  Install driver 580 or a newer one (nvidia-smi "
      "shows which is there), or set train.device to cpu.");
  const auto none = message_of<ConfigError>([] { check_driver(0, 13000, ""); });
  CHECK(testing::has(none, "no NVIDIA driver is loaded on this host"));
}

}  // namespace
}  // namespace tptrain::device
