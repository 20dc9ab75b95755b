// Weight gradients with the sums of their squares, on a card that has the kernel (capability 9.0):
// right for sizes around its tiles and stages, sums of what was written and of nothing else.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>

#include <cmath>
#include <limits>

#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

// Tensor cores cut an fp32 sum's last bits off instead of rounding them.
constexpr double kFp32Sum = 1e-5;
// Of many sums of eight squares in fp32, whose roundings cancel, relative.
constexpr double kSquares = 1e-8;

bool has_kernel() {
  const cudaDeviceProp& card = *at::cuda::getCurrentDeviceProperties();
  return card.major == 9 && card.minor == 0;
}

struct Operands {
  at::Tensor dy, x, grad, squares;  // grad is NaN, the squares are
};
/// Rows that lie `apart` elements further apart than they are long.
Operands operands_of(int64_t tokens, int64_t out, int64_t in, int64_t apart = 0) {
  const auto rows = [&](int64_t columns, int64_t seed) {
    const at::Tensor wide = at::full({tokens, columns + apart}, std::nan(""),
                                     at::TensorOptions(device()).dtype(at::kBFloat16));
    at::Tensor result = wide.narrow(1, 0, columns);
    result.copy_(normal({tokens, columns}, seed));
    return result;
  };
  const at::TensorOptions options(device());
  return {.dy = rows(out, 1),
          .x = rows(in, 2),
          .grad = at::full({out, in}, std::nan(""), options.dtype(at::kFloat)),
          .squares = at::full({weight_gradient_squares(out, in, device())}, std::nan(""),
                              options.dtype(at::kDouble))};
}
bool multiply(Operands& operands) {
  return weight_gradient_with_squares(operands.grad, operands.dy, operands.x, operands.squares);
}
double sum_of_squares(const at::Tensor& values) {
  return values.to(at::kDouble).square().sum().item<double>();
}

}  // namespace

TEST_CASE("a weight's gradient and its squares agree with fp64", "[kernels]") {
  CHECK((weight_gradient_squares(256, 256, device()) > 0) == has_kernel());
  if (!has_kernel()) return;
  // Fewer tokens than a stage has, more than all stages, more tiles than the card takes at once.
  for (const auto& [tokens, out, in] : {std::tuple{1, 256, 256},
                                        {33, 256, 512},
                                        {64, 512, 256},
                                        {1000, 768, 2560},
                                        {4096, 256, 256},
                                        {130, 8192, 4096}}) {
    for (const int64_t apart : {0, 40}) {
      CAPTURE(tokens, out, in, apart);
      Operands operands = operands_of(tokens, out, in, apart);
      REQUIRE(multiply(operands));
      CHECK_CLOSE(operands.grad,
                  at::mm(operands.dy.to(at::kDouble).t(), operands.x.to(at::kDouble)), kFp32Sum);
      const double expected = sum_of_squares(operands.grad);
      CHECK(std::abs(operands.squares.sum().item<double>() - expected) <= kSquares * expected);
      Operands again = operands_of(tokens, out, in, apart);
      REQUIRE(multiply(again));
      CHECK(same_bits(again.grad, operands.grad));
      CHECK(same_bits(again.squares, operands.squares));
    }
  }
}

TEST_CASE("squares of a gradient: zeros, numbers whose squares leave fp32, inf and nan",
          "[kernels]") {
  if (!has_kernel()) return;
  Operands operands = operands_of(64, 256, 512);
  operands.dy.zero_();
  REQUIRE(multiply(operands));
  CHECK(operands.squares.eq(0).all().item<bool>());
  for (const double large : {1e-25, 1e25}) {
    operands.dy.zero_();
    operands.dy[3][17] = large;
    REQUIRE(multiply(operands));
    const double expected = sum_of_squares(operands.grad);
    CHECK(expected > 0);
    CHECK(std::abs(operands.squares.sum().item<double>() - expected) <= kSquares * expected);
  }
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    operands.dy.zero_();
    operands.dy[63][255] = poison;
    operands.x[63].fill_(1.0);
    REQUIRE(multiply(operands));
    CHECK_FALSE(std::isfinite(operands.squares.sum().item<double>()));
  }
}

TEST_CASE("what the kernel does not take it leaves alone", "[kernels]") {
  CHECK(weight_gradient_squares(256, 250, device()) == 0);
  CHECK(weight_gradient_squares(128, 256, device()) == 0);
  CHECK(weight_gradient_squares(256, 256, at::kCPU) == 0);
  if (!has_kernel()) return;
  const auto refused = [](Operands operands) {
    return !multiply(operands) && operands.grad.isnan().all().item<bool>() &&
           operands.squares.isnan().all().item<bool>();
  };
  CHECK(refused(operands_of(64, 256, 256, /*apart=*/3)));  // rows that do not begin at 16 bytes
  Operands of_fp32 = operands_of(64, 256, 256);
  of_fp32.x = of_fp32.x.to(at::kFloat);
  CHECK(refused(of_fp32));
  Operands into_bf16 = operands_of(64, 256, 256);
  into_bf16.grad = into_bf16.grad.to(at::kBFloat16);
  CHECK(refused(into_bf16));
  Operands columns = operands_of(256, 256, 256);
  columns.x = columns.x.t();
  CHECK(refused(columns));
}
