// Products of bf16 by measured algorithms: right for every form of the operands, the same bits at
// every call of a shape, in a captured graph too; in deterministic mode those of ATen.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <cmath>
#include <cstdlib>
#include <vector>

#include "kernels/gelu_product.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

// What deterministic algorithms need of cuBLAS, which reads it once.
const int kWorkspace = setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/1);

// Tensor cores cut an fp32 sum's last bits off instead of rounding them.
constexpr double kFp32Sum = 1e-5;
// Of two algorithms, each rounded to bf16.
constexpr double kTwoRoundings = 2 * kOneBf16Rounding;

class DeterministicMode {
 public:
  DeterministicMode() { set(true); }
  ~DeterministicMode() { set(false); }

 private:
  static void set(bool on) {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
  }
};

struct Size {
  int64_t tokens, in, out;
};
const std::vector<Size> kSizes = {{256, 64, 192},   {33, 40, 24},    {130, 96, 172},
                                  {7, 27, 13},      {1, 896, 1152},  {3, 256, 1024},
                                  {2048, 896, 896}, {1000, 512, 333}};

/// How an operand lies in memory.
enum class Form { contiguous, rows_apart, begins_anywhere };

/// bf16 or fp32 on CUDA, of what a matrix on the CPU holds.
at::Tensor placed(const at::Tensor& matrix, Form form, at::ScalarType type = at::kBFloat16) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const at::TensorOptions options = at::TensorOptions(device()).dtype(type);
  at::Tensor result;
  switch (form) {
    case Form::contiguous:
      result = at::empty({rows, columns}, options);
      break;
    case Form::rows_apart:
      result = at::full({rows, columns + 40}, 7.0, options).narrow(1, 0, columns);
      break;
    case Form::begins_anywhere:
      result = at::empty({rows * columns + 1}, options).narrow(0, 1, rows * columns);
      result = result.view({rows, columns});
      break;
  }
  result.copy_(matrix);
  return result;
}
bool between_rows_untouched(const at::Tensor& matrix) {
  const at::Tensor wide =
      matrix.as_strided({matrix.size(0), matrix.stride(0)}, {matrix.stride(0), 1});
  const int64_t columns = matrix.size(1);
  return wide.narrow(1, columns, wide.size(1) - columns).eq(7.0).all().item<bool>();
}

/// One layer's tensors on CUDA.
struct Layer {
  at::Tensor x, weight, bias, grad;
};
Layer layer_of(const Size& size, Form form = Form::contiguous) {
  return {.x = placed(normal({size.tokens, size.in}, 1), form),
          .weight = placed(normal({size.out, size.in}, 2), form),
          .bias = on_device(normal({size.out}, 3), at::kBFloat16),
          .grad = placed(normal({size.tokens, size.out}, 4), form)};
}
/// All products that a layer makes, the weight's gradient added to ones and written.
std::vector<at::Tensor> products_of(const Layer& layer) {
  at::Tensor added =
      at::ones({layer.weight.size(0), layer.weight.size(1)}, layer.x.options().dtype(at::kFloat));
  at::Tensor written = at::full_like(added, std::nan(""));
  accumulate_weight_gradient(added, layer.grad, layer.x);
  accumulate_weight_gradient(written, layer.grad, layer.x, Accumulate::overwrite);
  return {product(layer.x, layer.weight.t()), product(layer.x, layer.weight.t(), layer.bias),
          product(layer.grad, layer.weight), added, written};
}
bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!tptrain::testing::same_bits(a[i], b[i])) return false;
  }
  return a.size() == b.size();
}

void check_products(const Size& size, Form form) {
  CAPTURE(size.tokens, size.in, size.out, static_cast<int>(form));
  const at::Tensor x = normal({size.tokens, size.in}, 1), weight = normal({size.out, size.in}, 2),
                   bias = normal({size.out}, 3), grad = normal({size.tokens, size.out}, 4);
  const std::vector<at::Tensor> received = products_of(layer_of(size, form));
  const at::Tensor forward = at::mm(x, weight.t()), weight_gradient = at::mm(grad.t(), x);
  CHECK_CLOSE(received[0], forward, kOneBf16Rounding);
  // ATen, where it is the faster, adds a bias to sizes like 333 behind the product.
  CHECK_CLOSE(received[1], forward + bias, kTwoRoundings);
  CHECK_CLOSE(received[2], at::mm(grad, weight), kOneBf16Rounding);
  CHECK_CLOSE(received[3], weight_gradient + 1.0, kFp32Sum);
  CHECK_CLOSE(received[4], weight_gradient, kFp32Sum);
}

}  // namespace

TEST_CASE("products agree with fp64, whatever their sizes", "[kernels]") {
  for (const Size& size : kSizes) {
    for (const Form form : {Form::contiguous, Form::rows_apart, Form::begins_anywhere}) {
      check_products(size, form);
    }
  }
}

TEST_CASE("products with GELU agree with fp64, whatever their sizes", "[kernels]") {
  for (const Size& size : kSizes) {
    for (const Form form : {Form::contiguous, Form::rows_apart, Form::begins_anywhere}) {
      CAPTURE(size.tokens, size.in, size.out, static_cast<int>(form));
      const Layer layer = layer_of(size, form);
      const at::Tensor x = normal({size.tokens, size.in}, 1),
                       weight = normal({size.out, size.in}, 2) / std::sqrt(size.in),
                       bias = normal({size.out}, 3), grad = normal({size.tokens, size.out}, 4);
      const at::Tensor w = placed(weight, form);
      const at::Tensor exact = weight.to(at::kBFloat16).to(at::kDouble);
      const at::Tensor expected = at::mm(x, exact.t()) + bias;
      at::Tensor pre = on_device(at::full({size.tokens, size.out}, 7.0), at::kBFloat16);
      at::Tensor activation = at::full_like(pre, 7.0);
      for (int repeat = 0; repeat < 2; ++repeat) {  // the first call measures
        gelu_product_out(pre, activation, layer.x, w.t(), layer.bias);
        CHECK_CLOSE(pre, expected, kTwoRoundings);
        CHECK_CLOSE(activation, at::gelu(expected, "tanh"), kTwoRoundings);
      }
      // Back: of a product [T, out] times [out, in], at the activation's own input [T, in].
      const at::Tensor at_input = normal({size.tokens, size.in}, 5);
      at::Tensor out = on_device(at::full({size.tokens, size.in}, 7.0), at::kBFloat16);
      for (int repeat = 0; repeat < 2; ++repeat) {
        gelu_backward_product_out(out, layer.grad, w, on_device(at_input, at::kBFloat16));
        CHECK_CLOSE(out, at::gelu_backward(at::mm(grad, exact), at_input, "tanh"), kTwoRoundings);
      }
    }
  }
}

TEST_CASE("an output's rows may lie apart: nothing between them is written", "[kernels]") {
  for (const Size& size : kSizes) {
    CAPTURE(size.tokens, size.in, size.out);
    const Layer layer = layer_of(size);
    const std::vector<at::Tensor> expected = products_of(layer);
    at::Tensor out = placed(at::zeros({size.tokens, size.out}), Form::rows_apart);
    at::Tensor sum = placed(at::ones({size.out, size.in}), Form::rows_apart, at::kFloat);
    product_out(out, layer.x, layer.weight.t());
    CHECK_CLOSE(out, expected[0], kTwoRoundings);
    product_out(out, layer.x, layer.weight.t(), layer.bias);
    CHECK_CLOSE(out, expected[1], kTwoRoundings);
    accumulate_weight_gradient(sum, layer.grad, layer.x);
    CHECK_CLOSE(sum, expected[3], kFp32Sum);
    CHECK(between_rows_untouched(out));
    CHECK(between_rows_untouched(sum));
  }
}

TEST_CASE("the first product of a shape, which measures, leaves the operands as they were",
          "[kernels]") {
  const Size size = {.tokens = 320, .in = 136, .out = 264};
  const Layer layer = layer_of(size);
  const at::Tensor x = layer.x.clone(), weight = layer.weight.clone(), grad = layer.grad.clone();
  products_of(layer);
  CHECK(same_bits({layer.x, layer.weight, layer.grad}, {x, weight, grad}));
}

TEST_CASE("every product of a shape has the bits of its first", "[kernels]") {
  for (const Size& size : {Size{512, 768, 384}, Size{4096, 128, 136}, Size{77, 1000, 90}}) {
    CAPTURE(size.tokens, size.in, size.out);
    const Layer layer = layer_of(size);
    const std::vector<at::Tensor> first = products_of(layer);
    for (int repeat = 0; repeat < 5; ++repeat) {
      CHECK(same_bits(products_of(layer), first));
      CHECK(same_bits(products_of(layer_of(size)), first));  // elsewhere in memory
    }
  }
}

TEST_CASE("deterministic mode gives the bits of ATen", "[kernels]") {
  REQUIRE(kWorkspace == 0);
  const DeterministicMode mode;
  for (const Size& size : kSizes) {
    CAPTURE(size.tokens, size.in, size.out);
    const Layer layer = layer_of(size);
    at::Tensor added = at::ones({size.out, size.in}, layer.x.options().dtype(at::kFloat)),
               written = at::empty_like(added);
    at::addmm_out(added, added, layer.grad.t(), layer.x, at::kFloat);
    at::mm_out(written, layer.grad.t(), layer.x, at::kFloat);
    CHECK(same_bits(products_of(layer), {at::mm(layer.x, layer.weight.t()),
                                         at::addmm(layer.bias, layer.x, layer.weight.t()),
                                         at::mm(layer.grad, layer.weight), added, written}));
  }
}

TEST_CASE("fp32 has the bits of ATen", "[kernels]") {
  const Layer layer = layer_of({.tokens = 130, .in = 96, .out = 172});
  const at::Tensor x = layer.x.to(at::kFloat), weight = layer.weight.to(at::kFloat);
  CHECK(tptrain::testing::same_bits(product(x, weight.t()), at::mm(x, weight.t())));
}

TEST_CASE("a captured product of a shape met before has the bits of the issued one", "[kernels]") {
  const c10::cuda::CUDAStreamGuard guard(at::cuda::getStreamFromPool());
  for (const Size& size : {Size{2048, 896, 896}, Size{130, 96, 172}}) {
    CAPTURE(size.tokens, size.in, size.out);
    const Layer layer = layer_of(size);
    products_of(layer);
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    const std::vector<at::Tensor> replayed = products_of(layer);
    graph.capture_end();
    for (int repeat = 0; repeat < 3; ++repeat) {
      layer.x.normal_(), layer.weight.normal_(), layer.grad.normal_();
      const std::vector<at::Tensor> issued = products_of(layer);
      graph.replay();
      CHECK(same_bits(replayed, issued));
    }
  }
}

TEST_CASE("a shape that is first met in a capture is multiplied, and measured later", "[kernels]") {
  const c10::cuda::CUDAStreamGuard guard(at::cuda::getStreamFromPool());
  const Size size = {.tokens = 704, .in = 320, .out = 456};  // of no other test
  const Layer layer = layer_of(size);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const std::vector<at::Tensor> replayed = products_of(layer);
  graph.capture_end();
  graph.replay();
  const std::vector<at::Tensor> issued = products_of(layer);
  const double tolerances[] = {kTwoRoundings, kTwoRoundings, kTwoRoundings, kFp32Sum, kFp32Sum};
  for (size_t i = 0; i < issued.size(); ++i) CHECK_CLOSE(replayed[i], issued[i], tolerances[i]);
  CHECK(same_bits(products_of(layer), issued));
  check_products(size, Form::contiguous);
}
