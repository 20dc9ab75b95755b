// What the kernel tests share: the device under test, random inputs and the comparison. References
// are plain ATen in fp64 on the CPU, with autograd.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.h"

#ifndef TPTRAIN_TEST_DEVICE
#define TPTRAIN_TEST_DEVICE "cpu"
#define TPTRAIN_TEST_ON_CPU
#endif

#define CHECK_CLOSE(received, expected, tolerance) \
  CHECK(::tptrain::testing::relative_error((received), (expected)) <= (tolerance))

namespace tptrain::testing {

/// The same test sources run on the CPU (unit) and on CUDA (gpu).
inline at::Device device() { return at::Device(TPTRAIN_TEST_DEVICE); }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// What a sanitizer puts into a loop keeps it from vectorising: a row is summed in one chain, and
// 14336 of its fp32 additions stray up to 1e-5.
constexpr double kFp32Tolerance = 2e-5;
#else
constexpr double kFp32Tolerance = 2e-6;
#endif

/// fp32 and bf16 take the fused path of the device, fp64 its composition: all must agree with the
/// reference, each as well as its type can (bf16: half a unit of its last place is 4e-3 of the
/// element at most).
struct Precision {
  at::ScalarType type;
  double tolerance;  // of the largest element of the reference
};
inline std::vector<Precision> precisions() {
  return {{at::kFloat, kFp32Tolerance}, {at::kDouble, 1e-12}, {at::kBFloat16, 6e-3}};
}
/// Of what has no composition.
inline std::vector<Precision> fused_precisions() {
  return {{at::kFloat, kFp32Tolerance}, {at::kBFloat16, 6e-3}};
}

/// Standard normal times `scale`, fp64 on the CPU but representable in bf16, so that every
/// precision gets the same numbers.
inline at::Tensor normal(at::IntArrayRef sizes, uint64_t seed, double scale = 1.0) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return (at::randn(sizes, generator, at::kFloat) * scale).to(at::kBFloat16).to(at::kDouble);
}
inline at::Tensor leaf(const at::Tensor& tensor) { return tensor.clone().requires_grad_(true); }
inline at::Tensor on_device(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.to(device(), type).contiguous();
}

/// max |a - b| / max |b|; NaN where either holds one.
inline double relative_error(const at::Tensor& received, const at::Tensor& expected) {
  REQUIRE(received.numel() == expected.numel());
  const at::Tensor a = received.detach().to(at::kCPU, at::kDouble).reshape({-1});
  const at::Tensor b = expected.detach().to(at::kCPU, at::kDouble).reshape({-1});
  if (b.numel() == 0) return 0.0;
  const double largest = b.abs().max().item<double>();
  return (a - b).abs().max().item<double>() / (largest > 0.0 ? largest : 1.0);
}

/// max |a - b| / |b| over the elements where the reference is not tiny: what one rounding may do.
inline double elementwise_error(const at::Tensor& received, const at::Tensor& expected) {
  const at::Tensor a = received.detach().to(at::kCPU, at::kDouble).reshape({-1});
  const at::Tensor b = expected.detach().to(at::kCPU, at::kDouble).reshape({-1});
  return ((a - b).abs() / (b.abs() + 1e-6)).max().item<double>();
}
/// Half a unit of bf16's last place, and what fp32 arithmetic adds.
constexpr double kOneBf16Rounding = 1.02 / 256;

/// Bit for bit, so that NaN equals NaN and 0 differs from -0.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  return a.cpu().contiguous().view(at::kByte).equal(b.cpu().contiguous().view(at::kByte));
}

/// Of run(type), which returns what it computes, in every type of the loops: the same bits each
/// time, and on two threads what one computes.
template <typename Run>
void check_repeats_on_threads(const Run& run) {
  const auto on_threads = [&](int threads, at::ScalarType type) {
    at::set_num_threads(threads);
    std::vector<at::Tensor> results = run(type);
    at::set_num_threads(1);
    return results;
  };
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const std::vector<at::Tensor> one_thread = on_threads(1, type);
    for (const int threads : {1, 2}) {
      const std::vector<at::Tensor> once = on_threads(threads, type);
      const std::vector<at::Tensor> again = on_threads(threads, type);
      for (size_t i = 0; i < once.size(); ++i) {
        CAPTURE(type, threads, i);
        CHECK(same_bits(once[i], again[i]));
        CHECK_CLOSE(once[i], one_thread[i], kFp32Tolerance);
      }
    }
  }
}

/// What the function throws says, or "" where it does not throw.
template <typename Function>
std::string message_of(const Function& function) {
  try {
    function();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}
inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace tptrain::testing
