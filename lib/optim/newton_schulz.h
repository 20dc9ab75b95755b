// A matrix made orthogonal by Newton-Schulz iterations: U V^T of its singular value decomposition
// U S V^T, roughly: the coefficients drive every singular value into about 0.7 .. 1.2, which is
// near enough for an update and takes five steps. Source: Jordan et al., "Muon: an optimizer for
// hidden layers in neural networks", 2024.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace tptrain::optim {

/// A slice of a matrix along one dimension, where it lies.
struct MatrixSlice {
  at::Tensor values;  // [rows, columns] of the slice, fp32 or bf16
  int64_t dim = 0;
  int64_t begin = 0;  // along dim
};

/// A global matrix in slices that cover it; some may be there several times, with the same values.
struct WholeMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<MatrixSlice> slices;
};

/// Matrices of one size, or of that size transposed: small ones together keep a GPU busy. What a
/// batch is made of decides bits: it must not depend on the layout.
using MatrixBatch = std::vector<WholeMatrix>;

/// Elements that a batch may have beyond its first matrix.
inline constexpr int64_t kMostBatchElements = int64_t{1} << 24;

/// Multiplications and additions of `steps` iterations, each counted.
double newton_schulz_flops(int64_t rows, int64_t columns, int64_t steps);

/// Elements of what NewtonSchulz allocates for batches of these sizes.
class NewtonSchulzSize {
 public:
  void add(int64_t matrices, int64_t rows, int64_t columns);
  int64_t whole() const { return whole_; }
  int64_t square() const { return square_; }
  int64_t total() const { return 2 * (whole_ + square_); }

 private:
  int64_t whole_ = 0;   // all matrices of a batch
  int64_t square_ = 0;  // their shorter sides, squared
};

/// The iterations' arithmetic is fp32 on the CPU; on CUDA, as published, products of bf16 with sums
/// in fp32: singular values then come out within 0.05 of the CPU's.
class NewtonSchulz {
 public:
  NewtonSchulz(const NewtonSchulzSize& most, at::Device device);

  /// In place, in all slices. On CUDA: no host synchronisation, launches that are the same every
  /// time.
  void operator()(const MatrixBatch& batch, int64_t steps);

  /// What it computes in, and what therefore is enough for values on their way to and from it.
  static at::ScalarType dtype_on(at::Device device);

 private:
  at::Tensor whole_[2];   // of the matrices' size: where they are, and where they go next
  at::Tensor square_[2];  // of X X^T, and of the polynomial of it
};

}  // namespace tptrain::optim
