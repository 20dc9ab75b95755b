#include "optim/newton_schulz.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

namespace tptrain::optim {
namespace {

// Of x -> a x + b x^3 + c x^5 on the singular values.
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
// Added to the norm: a matrix of zeros stays one.
constexpr double kEps = 1e-7;
constexpr int64_t kOfMatrix[] = {1, 2};  // dimensions, behind the batch's

}  // namespace

double newton_schulz_flops(int64_t rows, int64_t columns, int64_t steps) {
  const auto shorter = static_cast<double>(std::min(rows, columns));
  const auto longer = static_cast<double>(std::max(rows, columns));
  return static_cast<double>(steps) * 2.0 * shorter * shorter * (2.0 * longer + shorter);
}

void NewtonSchulzSize::add(int64_t matrices, int64_t rows, int64_t columns) {
  const int64_t shorter = std::min(rows, columns);
  whole_ = std::max(whole_, matrices * rows * columns);
  square_ = std::max(square_, matrices * shorter * shorter);
}

at::ScalarType NewtonSchulz::dtype_on(at::Device device) {
  return device.is_cpu() ? at::kFloat : at::kBFloat16;
}

NewtonSchulz::NewtonSchulz(const NewtonSchulzSize& most, at::Device device) {
  const auto options = at::TensorOptions().dtype(dtype_on(device)).device(device);
  for (at::Tensor& whole : whole_) whole = at::empty({most.whole()}, options);
  for (at::Tensor& square : square_) square = at::empty({most.square()}, options);
}

void NewtonSchulz::operator()(const MatrixBatch& batch, int64_t steps) {
  const auto count = static_cast<int64_t>(batch.size());
  const int64_t m = std::min(batch[0].rows, batch[0].columns);
  const int64_t n = std::max(batch[0].rows, batch[0].columns);
  const auto sized = [&](const at::Tensor& memory, int64_t rows, int64_t columns) {
    return memory.narrow(0, 0, count * rows * columns).view({count, rows, columns});
  };
  at::Tensor x = sized(whole_[0], m, n);  // [count, m, n], m <= n: the smaller square
  at::Tensor next = sized(whole_[1], m, n);
  at::Tensor gram = sized(square_[0], m, m);
  at::Tensor polynomial = sized(square_[1], m, m);
  const auto for_each_slice = [&](const auto& each) {
    for (int64_t i = 0; i < count; ++i) {
      const WholeMatrix& matrix = batch[static_cast<size_t>(i)];
      const at::Tensor whole = matrix.rows > matrix.columns ? x[i].t() : x[i];  // [rows, columns]
      for (const MatrixSlice& slice : matrix.slices) {
        at::Tensor values = slice.values;
        at::Tensor place = whole.narrow(slice.dim, slice.begin, values.size(slice.dim));
        each(values, place);
      }
    }
  };

  for_each_slice([](at::Tensor& values, at::Tensor& place) { place.copy_(values); });
  // On the CPU in fp64: the bits do not depend on the number of threads.
  const auto summed_in = x.is_cpu() ? at::kDouble : at::kFloat;
  const at::Tensor norms =
      at::linalg_vector_norm(x, 2, at::IntArrayRef(kOfMatrix), /*keepdim=*/true, summed_in);
  x.div_((norms + kEps).to(x.scalar_type()));
  for (int64_t step = 0; step < steps; ++step) {
    at::bmm_out(gram, x, x.transpose(1, 2));
    at::baddbmm_out(polynomial, gram, gram, gram, kB, kC);
    at::baddbmm_out(next, x, polynomial, x, kA, 1.0);
    std::swap(x, next);
  }
  for_each_slice([](at::Tensor& values, at::Tensor& place) { values.copy_(place); });
}

}  // namespace tptrain::optim
