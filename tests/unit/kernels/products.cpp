// Products off CUDA are ATen's own, bit for bit.
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

TEST_CASE("a product gives ATen's bits", "[kernels]") {
  for (const Precision precision : precisions()) {
    CAPTURE(precision.type);
    const at::Tensor x = on_device(normal({33, 40}, 1), precision.type),
                     weight = on_device(normal({24, 40}, 2), precision.type),
                     bias = on_device(normal({24}, 3), precision.type),
                     grad = on_device(normal({33, 24}, 4), precision.type);
    CHECK(same_bits(product(x, weight.t()), at::mm(x, weight.t())));
    CHECK(same_bits(product(x, weight.t(), bias), at::addmm(bias, x, weight.t())));
    CHECK(same_bits(product(grad, weight), at::mm(grad, weight)));
    CHECK_CLOSE(product(x, weight.t(), bias),
                at::addmm(normal({24}, 3), normal({33, 40}, 1), normal({24, 40}, 2).t()),
                precision.tolerance);
  }
}

TEST_CASE("a product fills rows that lie apart, and nothing between them", "[kernels]") {
  for (const Precision precision : precisions()) {
    CAPTURE(precision.type);
    const at::Tensor x = on_device(normal({33, 40}, 5), precision.type),
                     weight = on_device(normal({24, 40}, 6), precision.type),
                     bias = on_device(normal({24}, 7), precision.type);
    const at::Tensor wide = at::full({33, 32}, 7.0, x.options());
    at::Tensor out = wide.narrow(1, 0, 24);
    product_out(out, x, weight.t());
    CHECK_CLOSE(out, at::mm(x, weight.t()), precision.tolerance);
    product_out(out, x, weight.t(), bias);
    CHECK_CLOSE(out, at::addmm(bias, x, weight.t()), precision.tolerance);
    CHECK(wide.narrow(1, 24, 8).eq(7.0).all().item<bool>());
  }
}

TEST_CASE("a product of matrices that do not fit says which", "[kernels]") {
  const std::string message = message_of([] { product(at::zeros({3, 4}), at::zeros({5, 6})); });
  CHECK(contains(message, "kernels::product got sizes [3, 4]"));
  CHECK(contains(message, "[K, N]"));
}
