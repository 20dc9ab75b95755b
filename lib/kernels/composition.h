// What the ATen-facing files share: which path a tensor takes, and the checks of its form. Private
// to this folder.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vector.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/stream.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

/// fp32 and bf16 on the CPU take the loops of cpu/. What takes neither these nor the kernels of
/// cuda/ (on CUDA a single position of attention, and norms of unusual sizes) takes the ATen
/// composition, where the function has one; fp64 takes it too.
inline bool takes_cpu_loops(const at::Tensor& tensor) {
  return tensor.is_cpu() &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

/// fp32 and bf16 on CUDA take the kernels of cuda/, where the build has them.
inline bool takes_cuda_kernels(const at::Tensor& tensor) {
  return tensor.is_cuda() && cuda::built() &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}
inline bool takes_cuda_norms(const at::Tensor& x) {
  return takes_cuda_kernels(x) && x.size(-1) <= cuda::kMostHidden;
}
inline cuda::Rotation rotation_of(const RotaryTable& table, Rotation direction) {
  return {.cos = table.cos.const_data_ptr<float>(),
          .sin = table.sin.const_data_ptr<float>(),
          .sign = direction == Rotation::inverse ? -1.0f : 1.0f};
}
inline cuda::Element element_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 ? cuda::Element::bf16 : cuda::Element::fp32;
}

/// A tensor that takes the loops, with its element type there: body(float{}) or body(cpu::Bf16{}).
template <typename Body>
void with_element_of(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kBFloat16) {
    body(cpu::Bf16{});
  } else {
    body(float{});
  }
}

/// A wrong type, as a wrong shape, is a mistake of a caller in lib/, never of a user.
template <typename T>
void expect_element(const at::Tensor& tensor) {
  const at::ScalarType type = sizeof(T) == sizeof(float) ? at::kFloat : at::kBFloat16;
  if (tensor.scalar_type() == type && tensor.is_cpu()) return;
  throw InternalError(problem(cat("kernels: a CPU kernel of ", type, " got a tensor of ",
                                  tensor.scalar_type(), " on ", tensor.device()))
                          .must("get all its activations and weights in one type"));
}
template <typename T>
const T* read(const at::Tensor& tensor) {
  expect_element<T>(tensor);
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* write(const at::Tensor& tensor) {
  expect_element<T>(tensor);
  return static_cast<T*>(tensor.mutable_data_ptr());
}

/// The compositions compute in fp32, or fp64 where the input is fp64.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline int64_t rows_of(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }
/// [T] -> [.., 1], to broadcast over the columns of x.
inline at::Tensor as_column(const at::Tensor& of_tokens, const at::Tensor& x) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = 1;
  return of_tokens.reshape(sizes);
}

/// A wrong shape here is a mistake of a caller in lib/, never of a user.
inline void expect(bool holds, const char* function, const char* constraint,
                   at::IntArrayRef received) {
  if (holds) return;
  throw InternalError(
      problem(cat("kernels::", function, " got sizes [", join(received), "]")).must(constraint));
}
inline void expect_contiguous(const at::Tensor& tensor, const char* function) {
  expect(tensor.is_contiguous(), function, "be contiguous", tensor.sizes());
}

/// Sums over rows that each piece of rows makes for itself, in fp32: body(sums, scratch, begin,
/// end) adds to `sums` and may overwrite `scratch`, both of `width` floats. The pieces' sums join
/// `total` in their order.
template <typename Body>
void add_row_sums(int64_t rows, int64_t row_elements, int64_t width, float* total, Body body) {
  const int64_t pieces = cpu::piece_count(rows, cpu::grain_of(row_elements));
  std::vector<float> scratch(static_cast<size_t>(pieces * width));
  std::vector<float> sums(static_cast<size_t>(pieces * width), 0.0f);
  cpu::parallel_pieces(rows, pieces, [&](int64_t piece, int64_t begin, int64_t end) {
    body(sums.data() + piece * width, scratch.data() + piece * width, begin, end);
  });
  for (int64_t piece = 0; piece < pieces; ++piece) {
    for (int64_t i = 0; i < width; ++i) total[i] += sums[static_cast<size_t>(piece * width + i)];
  }
}

/// The packed form that both paths of attention take.
inline void check_shape(const at::Tensor& qkv, const AttentionShape& shape, const char* function) {
  expect(shape.heads > 0 && shape.kv_heads > 0 && shape.head_dim > 0 &&
             shape.heads % shape.kv_heads == 0,
         function, "have kv_heads that divide heads",
         {shape.heads, shape.kv_heads, shape.head_dim});
  expect(qkv.dim() == 3 && qkv.size(2) == (shape.heads + 2 * shape.kv_heads) * shape.head_dim,
         function, "be [S, B, (heads + 2 * kv_heads) * D]", qkv.sizes());
  expect_contiguous(qkv, function);
}

}  // namespace tptrain::kernels
