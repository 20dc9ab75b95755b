// Whether this program can run on a GPU at all, as a check on plain values before its first kernel:
// it can be tried without one.
#pragma once

#include <string>
#include <vector>

namespace tptrain::device {

/// The least that the kernels are written for: bf16, and copies from global to shared memory that
/// no register holds.
inline constexpr int kLeastCapability = 80;  // major * 10 + minor

struct GpuSupport {
  std::string name;    // "NVIDIA A100-SXM4-80GB"
  int capability = 0;  // 90: 9.0
  /// The driver finds code for the GPU in this program: as it is, or by compiling it anew.
  bool runs_this_program = true;
};

/// `architectures`: what this program was compiled for, as 80, 90 ... Throws ConfigError that names
/// the GPU, its capability, what the program holds and the remedy.
void check_gpu_supported(const GpuSupport& gpu, const std::vector<int>& architectures);

/// `driver_cuda`: the newest CUDA that the driver serves, `runtime_cuda`: that of this program, as
/// CUDA numbers them (13000: 13.0). Throws ConfigError where the driver is too old; one of 0 is
/// none.
void check_driver(int driver_cuda, int runtime_cuda, const std::string& driver);

/// What the kernels of this program were compiled for, in rising order. In a build without CUDA:
/// none.
std::vector<int> compiled_architectures();

}  // namespace tptrain::device
