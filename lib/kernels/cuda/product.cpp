#include "kernels/cuda/product.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "kernels/cuda/product_call.h"
#include "kernels/cuda/properties.h"
#include "kernels/cuda/race.h"

namespace tptrain::kernels::cuda {

namespace {

// As much as cuBLAS takes for itself on this class of GPUs; most candidates need none.
constexpr size_t kMostWorkspace = size_t{32} << 20;
constexpr int kFewestRounds = 3;
constexpr int kMostRounds = 6;
constexpr float kMeasuringMs = 80.0f;  // of more than the fewest rounds
constexpr float kTie = 1.01f;
constexpr float kShareOfAten = 0.98f;  // of ATen's time, at most
// Larger products stay with ATen: their candidates differ by less than a GPU at its power limit
// does from one second to the next, and what wins alone loses beside collectives. Llama-3-8B, dp 2,
// reaches 85.0 % of its limit with none of them measured, 84.4 % with those up to 1 TFLOP, 83.9 %
// with all. The layers of Qwen2.5-0.5B and GPT-2 at sizes of benchmarks/ have up to 0.31 TFLOP.
constexpr double kMostMeasuredFlops = 0.35e12;
// But for those with a short side, where candidates differ by a tenth: tiles cover it with more or
// less waste. cuBLAS' own choice multiplies the heads of GPT-2 and Qwen2.5-0.5B (768 and 896) at
// 657 and 672 TFLOP/s beside layers of the same length at 730 and 740, and makes the gradients of
// Qwen2.5-0.5B's head in tiles of 256 columns of which an eighth is waste.
constexpr int64_t kShortSide = 1024;
constexpr double kMostMeasuredFlopsOfShortSides = 4e12;

/// Those without a workspace first, each once.
std::vector<Algorithm> candidates(const Call& call) {
  std::vector<Algorithm> found = call.proposals(0);
  for (const Algorithm& proposal : call.proposals(kMostWorkspace)) {
    const bool known = std::ranges::any_of(found, [&](const Algorithm& other) {
      return std::memcmp(&other.algorithm, &proposal.algorithm, sizeof proposal.algorithm) == 0;
    });
    if (!known) found.push_back(proposal);
  }
  return found;
}

/// Of those that the library proposes, and of ATen's product where there is one. Nothing: ATen's,
/// which also is where there is no memory to measure in: a job that just fits must not end here.
std::optional<Algorithm> fastest(const Call& call, const ByAten& by_aten) {
  std::vector<Algorithm> algorithms = candidates(call);
  at::Tensor workspace, out = call.product().out;
  try {
    workspace = call.workspace_for(algorithms);
    if (call.product().accumulate == Accumulate::add) {
      out = at::empty_strided(out.sizes(), out.strides(), out.options());
    }
  } catch (const c10::OutOfMemoryError&) {
    return std::nullopt;
  }
  // Nothing else shall run meanwhile: a collective beside one candidate would decide.
  c10::cuda::device_synchronize();
  // The first run of each loads its code, and drops those that refuse these operands after all.
  if (by_aten) by_aten(out, Accumulate::overwrite);
  std::erase_if(algorithms, [&](const Algorithm& candidate) {
    if (call.run(candidate, workspace, out, Accumulate::overwrite) == CUBLAS_STATUS_SUCCESS) {
      return false;
    }
    static_cast<void>(cudaGetLastError());  // or the next kernel's check would report it
    return true;
  });
  if (algorithms.empty()) return std::nullopt;
  std::vector<std::function<void()>> runs;
  for (const Algorithm& algorithm : algorithms) {
    runs.push_back([&] {
      check(call.run(algorithm, workspace, out, Accumulate::overwrite), "measuring", call.shape());
    });
  }
  if (by_aten) runs.push_back([&] { by_aten(out, Accumulate::overwrite); });
  Race race(std::move(runs), call.stream());
  float spent_ms = 0;
  for (int round = 0; round < kMostRounds && (round < kFewestRounds || spent_ms < kMeasuringMs);
       ++round) {
    spent_ms += race.round();
  }
  const std::vector<float>& ms = race.best_ms();
  const auto of_library = ms.begin() + static_cast<std::ptrdiff_t>(algorithms.size());
  const float best = *std::min_element(ms.begin(), of_library);
  if (by_aten && best > kShareOfAten * ms.back()) return std::nullopt;
  const auto chosen =
      std::find_if(ms.begin(), of_library, [&](float time) { return time <= kTie * best; });
  return algorithms[static_cast<size_t>(chosen - ms.begin())];
}

/// cuBLASLt on the devices of this process, and what was found to be fastest there.
class Library {
 public:
  void multiply(const Product& product, const ByAten& by_aten) {
    const Shape shape = shape_of(product);
    const Call call(product, shape, handle_of(shape));
    if (const std::optional<Algorithm> algorithm = algorithm_for(call, by_aten)) {
      call.run(*algorithm);
      return;
    }
    at::Tensor out = product.out;
    by_aten(out, product.accumulate);
  }

  void multiply_fp8(const Product& product) {
    const Shape shape = shape_of(product);
    const Call call(product, shape, handle_of(shape));
    const bool measured =
        flops_of(product) <= kMostMeasuredFlops && !at::globalContext().deterministicAlgorithms();
    if (measured) {
      if (const std::optional<Algorithm> algorithm = algorithm_for(call, {}))
        return call.run(*algorithm);
    }
    call.run(first_proposal(call));
  }

 private:
  cublasLtHandle_t handle_of(const Shape& shape) {
    const std::lock_guard lock(mutex_);
    cublasLtHandle_t& handle = handles_[shape.device];
    if (handle) return handle;
    // It may take memory of its own, which a capture of the usual kind would refuse.
    c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
    check(cublasLtCreate(&handle), "opening cuBLASLt", shape);
    return handle;
  }

  std::optional<Algorithm> algorithm_for(const Call& call, const ByAten& by_aten) {
    // Held while measuring: two threads' candidates would time each other.
    const std::lock_guard lock(mutex_);
    const auto known = choices_.find(call.shape());
    if (known != choices_.end()) return known->second;
    if (c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None) {
      return std::nullopt;
    }
    return choices_.emplace(call.shape(), fastest(call, by_aten)).first->second;
  }

  Algorithm first_proposal(const Call& call) {
    const std::lock_guard lock(mutex_);
    const auto known = proposed_.find(call.shape());
    if (known != proposed_.end()) return known->second;
    const std::vector<Algorithm> proposals = call.proposals(kMostWorkspace);
    if (proposals.empty()) fail("multiplying", "no algorithm of cuBLASLt takes it", call.shape());
    return proposed_.emplace(call.shape(), proposals.front()).first->second;
  }

  std::recursive_mutex mutex_;  // what is measured against may be made of products itself
  std::map<int64_t, cublasLtHandle_t> handles_;
  std::map<Shape, std::optional<Algorithm>> choices_;  // nothing: ATen's
  std::map<Shape, Algorithm> proposed_;                // what the library expects to be fastest
};

Library& library() {
  // Never destroyed: when the process ends, CUDA may be gone before it.
  static Library& only = *new Library;
  return only;
}

bool is_matrix(const at::Tensor& tensor, int64_t rows, int64_t columns) {
  return tensor.is_cuda() && tensor.dim() == 2 && tensor.size(0) == rows &&
         tensor.size(1) == columns && tensor.numel() > 0;
}
bool is_bias(const at::Tensor& bias, int64_t columns) {
  return bias.is_cuda() && bias.scalar_type() == at::kBFloat16 && bias.dim() == 1 &&
         bias.size(0) == columns && bias.is_contiguous() &&
         alignment_of({bias.const_data_ptr()}) == kMostAlignment;
}

bool is_gelu(const Product& p) {
  constexpr int64_t kElements = kMostAlignment / 2;  // of bf16: rows of pre begin at 16 bytes
  return p.pre.is_cuda() && p.pre.scalar_type() == at::kBFloat16 &&
         p.out.scalar_type() == at::kBFloat16 && p.pre.sizes() == p.out.sizes() &&
         p.pre.is_contiguous() && p.pre.size(1) % kElements == 0 &&
         alignment_of({p.pre.const_data_ptr()}) == kMostAlignment &&
         p.bias.defined() == (p.gelu == Gelu::forward);
}

}  // namespace

bool takes_product(const Product& p) {
  if (at::globalContext().deterministicAlgorithms()) return false;
  if (p.a.scalar_type() != at::kBFloat16 || p.b.scalar_type() != at::kBFloat16) return false;
  if (p.a.dim() != 2 || p.b.dim() != 2) return false;
  const int64_t m = p.a.size(0), k = p.a.size(1), n = p.b.size(1);
  const bool short_side = std::min({m, n, k}) <= kShortSide;
  if (flops_of(p) > (short_side ? kMostMeasuredFlopsOfShortSides : kMostMeasuredFlops))
    return false;
  if (!is_matrix(p.a, m, k) || !is_matrix(p.b, k, n) || !is_matrix(p.out, m, n)) return false;
  if (p.out.scalar_type() != at::kBFloat16 && p.out.scalar_type() != at::kFloat) return false;
  if (p.bias.defined() && (p.out.scalar_type() != at::kBFloat16 || !is_bias(p.bias, n))) {
    return false;
  }
  if (p.gelu != Gelu::none && !is_gelu(p)) return false;
  return placement_of(p.a) && placement_of(p.b) && rows_of(p.out);
}

void multiply(const Product& product, const ByAten& by_aten) {
  const c10::cuda::CUDAGuard guard(product.out.device());
  library().multiply(product, by_aten);
}

void multiply_fp8(const Product& product) {
  const c10::cuda::CUDAGuard guard(product.out.device());
  library().multiply_fp8(product);
}

bool multiplies_fp8(int device) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  return capability() >= 89;
}

}  // namespace tptrain::kernels::cuda
