#include "kernels/cuda/product.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <compare>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cuda/race.h"

namespace tptrain::kernels::cuda {

namespace {

// As much as cuBLAS takes for itself on this class of GPUs; most candidates need none.
constexpr size_t kMostWorkspace = size_t{32} << 20;
constexpr int kProposals = 8;  // asked for, for each size of the workspace
// No kernel asks for more. Told of 256 bytes, the library would answer for them alone, and a weight
// that begins elsewhere would be another shape.
constexpr uint32_t kMostAlignment = 16;
constexpr int kFewestRounds = 3;
constexpr int kMostRounds = 6;
constexpr float kMeasuringMs = 80.0f;  // of more than the fewest rounds
constexpr float kTie = 1.01f;
constexpr float kGain = 0.98f;  // of ATen's time, at most
// Larger products stay with ATen: their candidates differ by less than a GPU at its power limit
// does from one second to the next, and what wins alone loses beside collectives. Llama-3-8B, dp 2,
// reaches 85.0 % of its limit with none of them measured, 84.4 % with those up to 1 TFLOP, 83.9 %
// with all. The layers of Qwen2.5-0.5B and GPT-2 at sizes of benchmarks/ have up to 0.31 TFLOP.
constexpr double kMostMeasuredFlops = 0.35e12;

/// How a matrix lies in memory: as rows, or as the transpose of rows.
struct Placement {
  bool transposed = false;
  int64_t distance = 0;  // from one row's begin to the next, in elements

  auto operator<=>(const Placement&) const = default;
};

std::optional<Placement> rows_of(const at::Tensor& matrix) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  if (columns > 1 && matrix.stride(1) != 1) return std::nullopt;
  const int64_t distance = rows > 1 ? matrix.stride(0) : columns;
  if (distance < columns) return std::nullopt;
  return Placement{.distance = distance};
}
std::optional<Placement> placement_of(const at::Tensor& matrix) {
  if (const std::optional<Placement> rows = rows_of(matrix)) return rows;
  const std::optional<Placement> rows = rows_of(matrix.t());
  if (!rows) return std::nullopt;
  return Placement{.transposed = true, .distance = rows->distance};
}

uint32_t alignment_of(std::initializer_list<const void*> pointers) {
  uint32_t alignment = kMostAlignment;
  for (const void* pointer : pointers) {
    while (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) alignment /= 2;
  }
  return alignment;
}

enum class Epilogue { none, bias };

/// What a choice holds for. Whether the product is added to the output is no part of it: nothing
/// but one more read of the output depends on that.
struct Shape {
  int64_t device = 0;
  int64_t m = 0, n = 0, k = 0;
  Placement a, b, out;
  at::ScalarType out_type = at::kBFloat16;
  Epilogue epilogue = Epilogue::none;
  uint32_t alignment = kMostAlignment;

  auto operator<=>(const Shape&) const = default;
};

Shape shape_of(const Product& p) {
  return {.device = p.out.get_device(),
          .m = p.a.size(0),
          .n = p.b.size(1),
          .k = p.a.size(1),
          .a = *placement_of(p.a),
          .b = *placement_of(p.b),
          .out = *rows_of(p.out),
          .out_type = p.out.scalar_type(),
          .epilogue = p.bias.defined() ? Epilogue::bias : Epilogue::none,
          .alignment =
              alignment_of({p.a.const_data_ptr(), p.b.const_data_ptr(), p.out.const_data_ptr()})};
}

std::string text_of(const Placement& placement) {
  return cat(placement.transposed ? "transposed, " : "", "rows ", placement.distance, " apart");
}
[[noreturn]] void fail(const char* what, const std::string& reason, const Shape& shape) {
  throw InternalError(
      problem(cat("kernels::product: ", what, ": ", reason, ", for [", shape.m, ", ", shape.k,
                  "] (", text_of(shape.a), ") times [", shape.k, ", ", shape.n, "] (",
                  text_of(shape.b), ") of bf16 into ", shape.out_type, " (", text_of(shape.out),
                  shape.epilogue == Epilogue::bias ? "), with a bias" : ")", ", aligned to ",
                  shape.alignment, " bytes")));
}
void check(cublasStatus_t status, const char* what, const Shape& shape) {
  if (status != CUBLAS_STATUS_SUCCESS) fail(what, cublasLtGetStatusString(status), shape);
}

template <auto destroy>
struct Destroyed {
  template <typename T>
  void operator()(T* handle) const {
    destroy(handle);
  }
};
using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroyed<cublasLtMatmulDescDestroy>>;
using Layout =
    std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroyed<cublasLtMatrixLayoutDestroy>>;
using Preference =
    std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroyed<cublasLtMatmulPreferenceDestroy>>;

struct Algorithm {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes = 0;
};

/// A product in cuBLASLt's terms, where matrices lie in columns: what we see as rows it sees
/// transposed, so it is asked for out^T = b^T a^T.
class Call {
 public:
  Call(const Product& product, const Shape& shape, cublasLtHandle_t library)
      : product_(product),
        shape_(shape),
        library_(library),
        stream_(at::cuda::getCurrentCUDAStream()),
        b_(layout(CUDA_R_16BF, shape.k, shape.n, shape.b)),
        a_(layout(CUDA_R_16BF, shape.m, shape.k, shape.a)),
        out_(layout(shape.out_type == at::kFloat ? CUDA_R_32F : CUDA_R_16BF, shape.m, shape.n,
                    shape.out)) {
    cublasLtMatmulDesc_t operation = nullptr;
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation",
          shape_);
    operation_.reset(operation);
    set(CUBLASLT_MATMUL_DESC_TRANSA, shape.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, shape.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (shape.epilogue == Epilogue::bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias.const_data_ptr());
    }
  }

  /// In the order in which the library expects them to be fast.
  std::vector<Algorithm> proposals(size_t workspace_bytes) const {
    cublasLtMatmulPreference_t created = nullptr;
    check(cublasLtMatmulPreferenceCreate(&created), "a preference", shape_);
    const Preference preference(created);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(created, attribute, &value, sizeof value),
            "a preference", shape_);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    // Parts of a sum are added in fp32.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE |
                                 CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape_.alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape_.alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape_.alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape_.alignment);
    std::array<cublasLtMatmulHeuristicResult_t, kProposals> results = {};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        library_, operation_.get(), b_.get(), a_.get(), out_.get(), out_.get(), preference.get(),
        kProposals, results.data(), &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
    check(status, "asking for algorithms", shape_);
    std::vector<Algorithm> algorithms;
    for (int i = 0; i < count; ++i) {
      if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
      algorithms.push_back({results[i].algo, results[i].workspaceSize});
    }
    return algorithms;
  }

  /// Memory for any of the algorithms; undefined where none needs any.
  at::Tensor workspace_for(const std::vector<Algorithm>& algorithms) const {
    size_t bytes = 0;
    for (const Algorithm& candidate : algorithms)
      bytes = std::max(bytes, candidate.workspace_bytes);
    if (bytes == 0) return {};
    return at::empty({static_cast<int64_t>(bytes)}, product_.out.options().dtype(at::kByte));
  }

  cublasStatus_t run(const Algorithm& algorithm, const at::Tensor& workspace, const at::Tensor& out,
                     Accumulate accumulate) const {
    const float alpha = 1.0f, beta = accumulate == Accumulate::add ? 1.0f : 0.0f;
    void* const to = out.mutable_data_ptr();
    return cublasLtMatmul(library_, operation_.get(), &alpha, product_.b.const_data_ptr(), b_.get(),
                          product_.a.const_data_ptr(), a_.get(), &beta, to, out_.get(), to,
                          out_.get(), &algorithm.algorithm,
                          workspace.defined() ? workspace.mutable_data_ptr() : nullptr,
                          algorithm.workspace_bytes, stream_);
  }
  void run(const Algorithm& algorithm) const {
    check(run(algorithm, workspace_for({algorithm}), product_.out, product_.accumulate),
          "multiplying", shape_);
  }

  const Product& product() const { return product_; }
  const Shape& shape() const { return shape_; }
  const at::cuda::CUDAStream& stream() const { return stream_; }

 private:
  Layout layout(cudaDataType_t type, int64_t rows, int64_t columns,
                const Placement& placement) const {
    if (placement.transposed) std::swap(rows, columns);
    cublasLtMatrixLayout_t created = nullptr;
    check(cublasLtMatrixLayoutCreate(&created, type, static_cast<uint64_t>(columns),
                                     static_cast<uint64_t>(rows), placement.distance),
          "a layout", shape_);
    return Layout(created);
  }
  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check(cublasLtMatmulDescSetAttribute(operation_.get(), attribute, &value, sizeof value),
          "an operation", shape_);
  }

  const Product& product_;
  const Shape& shape_;
  cublasLtHandle_t library_;
  at::cuda::CUDAStream stream_;
  Operation operation_;
  Layout b_, a_, out_;
};

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

/// Nothing: ATen's, which also is where there is no memory to measure in: a job that just fits must
/// not end here.
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
  by_aten(out, Accumulate::overwrite);
  std::erase_if(algorithms, [&](const Algorithm& candidate) {
    if (call.run(candidate, workspace, out, Accumulate::overwrite) == CUBLAS_STATUS_SUCCESS) {
      return false;
    }
    static_cast<void>(cudaGetLastError());  // or the next kernel's check would report it
    return true;
  });
  if (algorithms.empty()) return std::nullopt;
  std::vector<std::function<void()>> runs = {[&] { by_aten(out, Accumulate::overwrite); }};
  for (const Algorithm& algorithm : algorithms) {
    runs.push_back([&] {
      check(call.run(algorithm, workspace, out, Accumulate::overwrite), "measuring", call.shape());
    });
  }
  Race race(std::move(runs), call.stream());
  float spent_ms = 0;
  for (int round = 0; round < kMostRounds && (round < kFewestRounds || spent_ms < kMeasuringMs);
       ++round) {
    spent_ms += race.round();
  }
  const std::vector<float>& ms = race.best_ms();
  const float best = *std::min_element(ms.begin() + 1, ms.end());
  if (best > kGain * ms.front()) return std::nullopt;
  const auto chosen =
      std::find_if(ms.begin() + 1, ms.end(), [&](float time) { return time <= kTie * best; });
  return algorithms[static_cast<size_t>(chosen - ms.begin()) - 1];
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

  std::mutex mutex_;
  std::map<int64_t, cublasLtHandle_t> handles_;
  std::map<Shape, std::optional<Algorithm>> choices_;  // nothing: ATen's
};

bool is_matrix(const at::Tensor& tensor, int64_t rows, int64_t columns) {
  return tensor.is_cuda() && tensor.dim() == 2 && tensor.size(0) == rows &&
         tensor.size(1) == columns && tensor.numel() > 0;
}
bool is_bias(const at::Tensor& bias, int64_t columns) {
  return bias.is_cuda() && bias.scalar_type() == at::kBFloat16 && bias.dim() == 1 &&
         bias.size(0) == columns && bias.is_contiguous() &&
         alignment_of({bias.const_data_ptr()}) == kMostAlignment;
}

}  // namespace

bool takes_product(const Product& p) {
  if (at::globalContext().deterministicAlgorithms()) return false;
  if (p.a.scalar_type() != at::kBFloat16 || p.b.scalar_type() != at::kBFloat16) return false;
  if (p.a.dim() != 2 || p.b.dim() != 2) return false;
  const int64_t m = p.a.size(0), k = p.a.size(1), n = p.b.size(1);
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (flops > kMostMeasuredFlops) return false;
  if (!is_matrix(p.a, m, k) || !is_matrix(p.b, k, n) || !is_matrix(p.out, m, n)) return false;
  if (p.out.scalar_type() != at::kBFloat16 && p.out.scalar_type() != at::kFloat) return false;
  if (p.bias.defined() && (p.out.scalar_type() != at::kBFloat16 || !is_bias(p.bias, n))) {
    return false;
  }
  return placement_of(p.a) && placement_of(p.b) && rows_of(p.out);
}

void multiply(const Product& product, const ByAten& by_aten) {
  const c10::cuda::CUDAGuard guard(product.out.device());
  // Never destroyed: when the process ends, CUDA may be gone before it.
  static Library& library = *new Library;
  library.multiply(product, by_aten);
}

}  // namespace tptrain::kernels::cuda
