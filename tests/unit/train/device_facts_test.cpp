// What the step metrics know of devices.
#include "train/device_facts.h"

#include "support/catch.h"

namespace tptrain::train {

TEST_CASE("utilisation is of the peak of the type that trains, where the device is known") {
  CHECK(peak_flops("NVIDIA H200", at::kBFloat16) == 989e12);
  CHECK(peak_flops("NVIDIA H100 80GB HBM3", at::kFloat) == 66.9e12);
  CHECK(peak_flops("NVIDIA A100-SXM4-80GB", at::kBFloat16) == 312e12);
  CHECK(!peak_flops("Some other device", at::kBFloat16));
  CHECK(!peak_flops(at::Device(at::kCPU), at::kFloat));
}

TEST_CASE("memory of the host is known") {
  const MemoryUse use = memory_use(at::Device(at::kCPU));
  CHECK(use.peak_bytes > 0);
  CHECK(use.total_bytes > use.peak_bytes);
  CHECK(available_cores() >= 1);
}

}  // namespace tptrain::train
