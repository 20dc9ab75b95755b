// What the step metrics know of devices.
#include "device/device_facts.h"

#include "support/catch.h"

namespace tptrain::device {

TEST_CASE("utilisation is of the peak of the type that trains, where the device is known") {
  CHECK(peak_flops("NVIDIA H200", at::kBFloat16) == 989e12);
  CHECK(peak_flops("NVIDIA H100 80GB HBM3", at::kFloat) == 66.9e12);
  CHECK(peak_flops("NVIDIA A100-SXM4-80GB", at::kBFloat16) == 312e12);
  CHECK(peak_flops("NVIDIA A10", at::kBFloat16) == 125e12);
  CHECK(peak_flops("NVIDIA L4", at::kBFloat16) == 121e12);
  CHECK(peak_flops("NVIDIA L40S", at::kBFloat16) == 362e12);
  CHECK(peak_flops("NVIDIA H100 PCIe", at::kBFloat16) == 756e12);
  CHECK(peak_flops("NVIDIA H100 NVL", at::kBFloat16) == 835.5e12);
  CHECK(peak_flops("NVIDIA B200", at::kBFloat16) == 2250e12);
  CHECK(peak_flops("NVIDIA GeForce RTX 3090", at::kBFloat16) == 71e12);
  CHECK(peak_flops("NVIDIA GeForce RTX 4090", at::kFloat) == 82.6e12);
  CHECK(peak_flops("NVIDIA GeForce RTX 5090", at::kBFloat16) == 209.5e12);
  CHECK(peak_flops("NVIDIA RTX 6000 Ada Generation", at::kBFloat16) == 364.2e12);
  // Other parts, however near their names are.
  for (const char* other : {"NVIDIA A10G", "NVIDIA A1000", "NVIDIA GeForce RTX 3090 Ti",
                            "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 D",
                            "NVIDIA GB200", "NVIDIA L400"})
    CHECK(!peak_flops(other, at::kBFloat16));
  // A slice of a card has a part of its multiprocessors.
  CHECK(!peak_flops("NVIDIA A100-SXM4-80GB MIG 3g.40gb", at::kBFloat16));
  CHECK(!peak_flops("NVIDIA H200 MIG 1g.18gb", at::kBFloat16));
  CHECK(!peak_flops("Some other device", at::kBFloat16));
  CHECK(!peak_flops(at::Device(at::kCPU), at::kFloat));
}

TEST_CASE("memory of the host is known") {
  const MemoryUse use = memory_use(at::Device(at::kCPU));
  CHECK(use.peak_bytes > 0);
  CHECK(use.total_bytes > use.peak_bytes);
}

}  // namespace tptrain::device
