// Passes over many gradients on CUDA: sums of squares, and the search for inf and nan. Plain
// pointers, no torch. In a build without CUDA (absent.cpp) nothing of it is called.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/multi_tensor.h"

namespace tptrain::zero::cuda {

using kernels::cuda::Chunk;
using kernels::cuda::Element;
using kernels::cuda::Stream;

/// A row of the table of tensors.
struct Gradient {
  const void* data = nullptr;
  Element element = Element::fp32;
  kernels::cuda::WrittenRows rows;
};

/// Elements a chunk has at most: 32 a thread.
inline constexpr int64_t kChunkElements = 8192;

/// Sums of squares that somebody else has found, of pieces of one tensor.
struct FoundSquares {
  const double* of_pieces = nullptr;
  int64_t count = 0;
  float* mark = nullptr;  // as SumsOfSquares::marks
};

/// sums[i]: over the chunks of group i and what was found of other tensors of it, in fp64. What is
/// added to what follows from the chunks alone, never from where the tensors lie. *marks[t] = inf
/// where tensor t holds inf or nan, unless that pointer is null: in fp64 no other square of fp32 is
/// infinite.
struct SumsOfSquares {
  const Gradient* tensors = nullptr;
  float* const* marks = nullptr;
  const Chunk* chunks = nullptr;
  int64_t chunk_count = 0;
  double* partial = nullptr;  // [chunk_count]
  // The chunks of group i are [group_begins[i], group_begins[i + 1]).
  const int64_t* group_begins = nullptr;
  const FoundSquares* found = nullptr;
  int64_t found_count = 0;
  double* found_sums = nullptr;           // [found_count]
  const int64_t* found_begins = nullptr;  // as group_begins
  int64_t groups = 0;
  double* sums = nullptr;
};
void sums_of_squares(const SumsOfSquares& args, Stream stream);

/// marks[i] = inf where tensor i holds inf or nan; no other word is written.
struct Marks {
  const Gradient* tensors = nullptr;
  const Chunk* chunks = nullptr;
  int64_t chunk_count = 0;
  float* marks = nullptr;
};
void mark_nonfinite(const Marks& args, Stream stream);

/// Rows of fp32 that are marked as written become zeros, and not written.
struct ClearRows {
  float* data = nullptr;
  uint8_t* written = nullptr;  // [rows]
  int64_t rows = 0;
  int64_t row_elements = 0;
};
void clear_rows(const ClearRows& args, Stream stream);

}  // namespace tptrain::zero::cuda
