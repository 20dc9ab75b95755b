// One product in cuBLASLt's terms: what its algorithm is chosen by, and the calls for it. Internal
// to product.cpp, which chooses.
#pragma once

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDADataType.h>
#include <cublasLt.h>

#include <array>
#include <compare>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cuda/product.h"

namespace tptrain::kernels::cuda {

// No kernel asks for more. Told of 256 bytes, the library would answer for them alone, and a weight
// that begins elsewhere would be another shape.
inline constexpr uint32_t kMostAlignment = 16;
inline constexpr int kProposals = 8;  // asked for, for each size of the workspace

/// How a matrix lies in memory: as rows, or as the transpose of rows.
struct Placement {
  bool transposed = false;
  int64_t distance = 0;  // from one row's begin to the next, in elements

  auto operator<=>(const Placement&) const = default;
};

inline std::optional<Placement> rows_of(const at::Tensor& matrix) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  if (columns > 1 && matrix.stride(1) != 1) return std::nullopt;
  const int64_t distance = rows > 1 ? matrix.stride(0) : columns;
  if (distance < columns) return std::nullopt;
  return Placement{.distance = distance};
}
inline std::optional<Placement> placement_of(const at::Tensor& matrix) {
  if (const std::optional<Placement> rows = rows_of(matrix)) return rows;
  const std::optional<Placement> rows = rows_of(matrix.t());
  if (!rows) return std::nullopt;
  return Placement{.transposed = true, .distance = rows->distance};
}

inline uint32_t alignment_of(std::initializer_list<const void*> pointers) {
  uint32_t alignment = kMostAlignment;
  for (const void* pointer : pointers) {
    while (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) alignment /= 2;
  }
  return alignment;
}

enum class Epilogue { none, bias, gelu, gelu_backward };

inline Epilogue epilogue_of(const Product& p) {
  if (p.gelu == Gelu::forward) return Epilogue::gelu;
  if (p.gelu == Gelu::backward) return Epilogue::gelu_backward;
  return p.bias.defined() ? Epilogue::bias : Epilogue::none;
}

/// What a choice holds for. Whether the product is added to the output is no part of it: nothing
/// but one more read of the output depends on that.
struct Shape {
  int64_t device = 0;
  int64_t m = 0, n = 0, k = 0;
  Placement a, b, out;
  at::ScalarType a_type = at::kBFloat16, b_type = at::kBFloat16, out_type = at::kBFloat16;
  bool fast_sums = false;
  Epilogue epilogue = Epilogue::none;
  uint32_t alignment = kMostAlignment;

  auto operator<=>(const Shape&) const = default;
};

inline double flops_of(const Product& p) {
  return 2.0 * static_cast<double>(p.a.size(0)) * static_cast<double>(p.b.size(1)) *
         static_cast<double>(p.a.size(1));
}

inline Shape shape_of(const Product& p) {
  return {.device = p.out.get_device(),
          .m = p.a.size(0),
          .n = p.b.size(1),
          .k = p.a.size(1),
          .a = *placement_of(p.a),
          .b = *placement_of(p.b),
          .out = *rows_of(p.out),
          .a_type = p.a.scalar_type(),
          .b_type = p.b.scalar_type(),
          .out_type = p.out.scalar_type(),
          .fast_sums = p.fast_sums,
          .epilogue = epilogue_of(p),
          .alignment =
              alignment_of({p.a.const_data_ptr(), p.b.const_data_ptr(), p.out.const_data_ptr()})};
}

inline std::string text_of(const Placement& placement) {
  return cat(placement.transposed ? "transposed, " : "", "rows ", placement.distance, " apart");
}
[[noreturn]] inline void fail(const char* what, const std::string& reason, const Shape& shape) {
  throw InternalError(
      problem(cat("kernels::product: ", what, ": ", reason, ", for [", shape.m, ", ", shape.k,
                  "] (", text_of(shape.a), ") times [", shape.k, ", ", shape.n, "] (",
                  text_of(shape.b), ") of ", shape.a_type, " and ", shape.b_type, " into ",
                  shape.out_type, " (", text_of(shape.out), "), epilogue ",
                  static_cast<int>(shape.epilogue), ", aligned to ", shape.alignment, " bytes")));
}
inline void check(cublasStatus_t status, const char* what, const Shape& shape) {
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
        b_(layout(shape.b_type, shape.k, shape.n, shape.b)),
        a_(layout(shape.a_type, shape.m, shape.k, shape.a)),
        out_(layout(shape.out_type, shape.m, shape.n, shape.out)) {
    cublasLtMatmulDesc_t operation = nullptr;
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "an operation",
          shape_);
    operation_.reset(operation);
    set(CUBLASLT_MATMUL_DESC_TRANSA, shape.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, shape.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_epilogue();
    if (!product.a_scale.defined()) return;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.b_scale.const_data_ptr());
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.a_scale.const_data_ptr());
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(shape.fast_sums ? 1 : 0));
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
    const float alpha = product_.factor, beta = accumulate == Accumulate::add ? 1.0f : 0.0f;
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
  void set_epilogue() {
    const auto choose = [&](cublasLtEpilogue_t epilogue) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    };
    if (product_.bias.defined()) {
      choose(CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, product_.bias.const_data_ptr());
    }
    if (product_.gelu == Gelu::none) return;
    // GELU here is the library's, which is the tanh form.
    choose(product_.gelu == Gelu::forward ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                                          : CUBLASLT_EPILOGUE_DGELU);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, product_.pre.mutable_data_ptr());
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, shape_.n);
  }

  Layout layout(at::ScalarType type, int64_t rows, int64_t columns,
                const Placement& placement) const {
    if (placement.transposed) std::swap(rows, columns);
    cublasLtMatrixLayout_t created = nullptr;
    check(cublasLtMatrixLayoutCreate(&created, at::cuda::ScalarTypeToCudaDataType(type),
                                     static_cast<uint64_t>(columns), static_cast<uint64_t>(rows),
                                     placement.distance),
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

}  // namespace tptrain::kernels::cuda
