// FP8: casts have the bits of a rounding to nearest even at the scale that the largest magnitude
// asks for, products are those of what the casts stored, and how far both are from fp64.
#include "kernels/fp8.h"

#include <ATen/ATen.h>

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

struct Type {
  Fp8 type;
  at::ScalarType scalar;
  double largest;
};
const std::vector<Type> kTypes = {{Fp8::e4m3, at::kFloat8_e4m3fn, 448.0},
                                  {Fp8::e5m2, at::kFloat8_e5m2, 57344.0}};

/// The largest power of two by which nothing leaves the type's range, as its inverse.
double scale_for(const at::Tensor& x, double largest) {
  const double most = x.abs().max().item<double>();
  return most > 0 ? std::exp2(-std::floor(std::log2(largest / most))) : 1.0;
}
at::Tensor bytes(const at::Tensor& tensor) { return tensor.cpu().contiguous().view(at::kByte); }

double signal_to_noise_db(const at::Tensor& received, const at::Tensor& expected) {
  const at::Tensor noise = received.to(at::kCPU, at::kDouble) - expected;
  return 10 *
         std::log10(expected.square().sum().item<double>() / noise.square().sum().item<double>());
}

}  // namespace

TEST_CASE("a cast to FP8 rounds to nearest even at a power of two, as rows and as columns",
          "[kernels]") {
  for (const Type& type : kTypes) {
    for (const std::vector<int64_t>& sizes :
         {std::vector<int64_t>{16, 16}, {128, 128}, {7, 272}, {395, 144}, {1040, 896}}) {
      for (const double magnitude : {1.0, 3e-6, 2.7e4}) {
        CAPTURE(type.scalar, sizes, magnitude);
        // Magnitudes over many powers of two, so that many fall below the smallest normal number.
        const at::Tensor x = (normal(sizes, 1) * at::exp(2.5 * normal(sizes, 2)) * magnitude)
                                 .to(at::kBFloat16)
                                 .to(at::kDouble);
        const double scale = scale_for(x, type.largest);
        const at::Tensor expected = (x / scale).to(at::kFloat).to(type.scalar);
        const at::Tensor input = on_device(x, at::kBFloat16);
        const Fp8Matrix cast = to_fp8(input, type.type, Fp8Form::both);
        CHECK(cast.scale.item<double>() == scale);
        CHECK(bytes(cast.rows).equal(bytes(expected)));
        const int64_t rows_and_padding = (sizes[0] + 15) / 16 * 16;
        REQUIRE(cast.columns.size(1) == rows_and_padding);
        CHECK(bytes(cast.columns).narrow(1, 0, sizes[0]).equal(bytes(expected).t()));
        CHECK(bytes(cast.columns)
                  .narrow(1, sizes[0], rows_and_padding - sizes[0])
                  .eq(0)
                  .all()
                  .item<bool>());
        CHECK(cast.rows.to(at::kFloat).isfinite().all().item<bool>());  // nothing saturates
        const Fp8Matrix rows = to_fp8(input, type.type, Fp8Form::rows);
        CHECK(same_bits(rows.rows.view(at::kByte), cast.rows.view(at::kByte)));
        CHECK_FALSE(rows.columns.defined());
        const Fp8Matrix columns = to_fp8(input, type.type, Fp8Form::columns, cast.scale);
        CHECK(same_bits(columns.columns.view(at::kByte), cast.columns.view(at::kByte)));
        CHECK_FALSE(columns.rows.defined());
      }
    }
  }
}

TEST_CASE("a cast to FP8 again in the memory of before is the cast of what is there now",
          "[kernels]") {
  const at::Tensor first = on_device(normal({64, 96}, 3), at::kBFloat16);
  const at::Tensor second = on_device(normal({64, 96}, 4, 50.0), at::kBFloat16);
  Fp8Matrix cast = to_fp8(first, Fp8::e4m3, Fp8Form::both);
  const void* const memory = cast.rows.const_data_ptr();
  to_fp8_out(cast, second, Fp8::e4m3);
  const Fp8Matrix expected = to_fp8(second, Fp8::e4m3, Fp8Form::both);
  CHECK(cast.rows.const_data_ptr() == memory);
  CHECK(same_bits(cast.rows.view(at::kByte), expected.rows.view(at::kByte)));
  CHECK(same_bits(cast.columns.view(at::kByte), expected.columns.view(at::kByte)));
  CHECK(same_bits(cast.scale, expected.scale));
}

TEST_CASE("a largest magnitude that is known beforehand gives the cast that would find it",
          "[kernels]") {
  const at::Tensor values = normal({48, 96}, 5, 3.0);
  const at::Tensor x = on_device(values, at::kBFloat16);
  at::Tensor amax = at::zeros({1}, x.options().dtype(at::kInt));
  raise_amax(amax, x.narrow(0, 0, 7));
  raise_amax(amax, x.narrow(0, 7, 0));
  raise_amax(amax, on_device(values, at::kFloat).narrow(0, 7, 41));  // to be rounded
  CHECK(amax.view(at::kFloat).item<float>() == x.to(at::kFloat).abs().max().item<float>());
  const Fp8Matrix expected = to_fp8(x, Fp8::e4m3, Fp8Form::both);
  const Fp8Matrix cast = to_fp8(x, Fp8::e4m3, Fp8Form::both, {}, amax);
  CHECK(same_bits(cast.rows.view(at::kByte), expected.rows.view(at::kByte)));
  CHECK(same_bits(cast.columns.view(at::kByte), expected.columns.view(at::kByte)));
  CHECK(same_bits(cast.scale, expected.scale));
  Fp8Matrix again = to_fp8(on_device(normal({48, 96}, 6), at::kBFloat16), Fp8::e4m3, Fp8Form::both);
  to_fp8_out(again, x, Fp8::e4m3, amax);
  CHECK(same_bits(again.rows.view(at::kByte), expected.rows.view(at::kByte)));
  // It is taken at its word: eight times as large leaves three binades unused.
  amax.add_(3 << 23);
  CHECK(to_fp8(x, Fp8::e4m3, Fp8Form::rows, {}, amax).scale.item<float>() ==
        8 * expected.scale.item<float>());
  at::Tensor of_none = at::zeros_like(amax);
  raise_amax(of_none, on_device(at::full({3}, std::nan("")), at::kFloat));
  CHECK(std::isnan(to_fp8(x, Fp8::e4m3, Fp8Form::rows, {}, of_none).scale.item<float>()));
}

TEST_CASE("a cast to FP8 of extremes: zeros, the largest and smallest numbers, and no number",
          "[kernels]") {
  const auto filled = [](double value) {
    at::Tensor x = at::zeros({16, 16}, at::kDouble);
    x[3][5] = value;
    return to_fp8(on_device(x, at::kBFloat16), Fp8::e4m3, Fp8Form::both);
  };
  CHECK(filled(0.0).scale.item<float>() == 1.0f);
  CHECK(filled(0.0).rows.to(at::kFloat).abs().max().item<float>() == 0.0f);
  for (const double value : {1.0, 1.75, 1.7578125, -3.0e38, 1e-38, 1e-40}) {
    CAPTURE(value);
    const Fp8Matrix cast = filled(value);
    const auto stored = cast.rows[3][5].to(at::kDouble).item<double>();
    const double bf16 = at::scalar_tensor(value, at::kDouble).to(at::kBFloat16).item<double>();
    CHECK(std::abs(stored * cast.scale.item<double>() - bf16) <= std::abs(bf16) / 16);
    CHECK(std::abs(stored) <= 448.0);
  }
  for (const double value :
       {static_cast<double>(INFINITY), -static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    const Fp8Matrix cast = filled(value);
    CHECK(std::isnan(cast.scale.item<float>()));
    at::Tensor out = at::zeros({16, 16}, cast.scale.options());
    fp8_product_out(out, {cast.rows, cast.scale}, {cast.rows, cast.scale}, Fp8Sums::split);
    CHECK(out.isnan().all().item<bool>());
  }
}

TEST_CASE("the largest magnitude of parts is that of the whole, and a cast takes what it is given",
          "[kernels]") {
  const at::Tensor x =
      on_device(normal({40, 96}, 8) * at::exp(2.5 * normal({40, 96}, 9)), at::kBFloat16);
  at::Tensor amax = at::zeros({3}, x.options().dtype(at::kInt));
  at::Tensor one = amax.narrow(0, 1, 1);
  for (const int64_t part : {8, 0, 32}) raise_amax(one, x.narrow(0, part == 32 ? 8 : 0, part));
  CHECK(same_bits(one.view(at::kFloat), x.abs().max().to(at::kFloat).reshape({1})));
  CHECK(amax[0].item<int32_t>() == 0);
  CHECK(amax[2].item<int32_t>() == 0);
  for (const Type& type : kTypes) {
    const Fp8Matrix expected = to_fp8(x, type.type, Fp8Form::both);
    const Fp8Matrix given = to_fp8(x, type.type, Fp8Form::both, {}, one);
    CHECK(same_bits(given.scale, expected.scale));
    CHECK(same_bits(given.rows.view(at::kByte), expected.rows.view(at::kByte)));
    // The largest magnitude of others: the same values at a larger scale.
    const at::Tensor larger = one.add(5 << 23);
    Fp8Matrix of_more = to_fp8(x, type.type, Fp8Form::rows, {}, larger);
    CHECK(same_bits(of_more.scale, expected.scale * 32));
    const at::Tensor bytes_of_more = bytes(of_more.rows).clone();
    of_more.rows.view(at::kByte).zero_();
    to_fp8_at_scale_out(of_more, x, type.type);
    CHECK(bytes(of_more.rows).equal(bytes_of_more));
    CHECK(
        bytes(of_more.rows).equal(bytes((x.to(at::kFloat) / of_more.scale).cpu().to(type.scalar))));
  }
}

TEST_CASE("scales of largest magnitudes are those that casts take", "[kernels]") {
  at::Tensor values = at::tensor({0.0, 1.0, 1.75, 1.7578125, 3.0e38, 1e-38, 1e-40, 448.0, 57344.0,
                                  57345.0, static_cast<double>(INFINITY), static_cast<double>(NAN)},
                                 at::kDouble)
                          .to(at::kBFloat16);
  const int64_t count = values.numel();
  values = on_device(values.to(at::kDouble), at::kBFloat16);
  at::Tensor amax = at::zeros({count}, values.options().dtype(at::kInt));
  for (const Type& type : kTypes) {
    std::vector<at::Tensor> expected;
    for (int64_t i = 0; i < count; ++i) {
      const at::Tensor x = at::zeros({1, 16}, values.options());
      x[0][3] = -values[i];
      at::Tensor one = amax.narrow(0, i, 1);
      raise_amax(one, x);
      expected.push_back(to_fp8(x, type.type, Fp8Form::rows).scale);
    }
    CHECK(same_bits(fp8_scales(amax, type.type), at::cat(expected)));
  }
}

TEST_CASE("columns that are made of rows are those of the cast", "[kernels]") {
  for (const std::vector<int64_t>& sizes :
       {std::vector<int64_t>{16, 16}, {1, 32}, {7, 272}, {395, 144}, {1040, 896}}) {
    CAPTURE(sizes);
    const Fp8Matrix cast =
        to_fp8(on_device(normal(sizes, 10), at::kBFloat16), Fp8::e5m2, Fp8Form::both);
    const at::Tensor columns = fp8_columns(cast.rows);
    CHECK(columns.scalar_type() == at::kFloat8_e5m2);
    CHECK(same_bits(columns.view(at::kByte), cast.columns.view(at::kByte)));
  }
}

TEST_CASE("a product of FP8 refuses scales and matrices that begin within 16 bytes", "[kernels]") {
  const Fp8Matrix a =
      to_fp8(on_device(normal({48, 64}, 5), at::kBFloat16), Fp8::e4m3, Fp8Form::rows);
  at::Tensor out = on_device(at::zeros({48, 32}), at::kFloat);
  const at::Tensor scales = on_device(at::ones({8}), at::kFloat);
  const auto multiply = [&](int64_t first_row, int64_t first_byte, int64_t scale) {
    const at::Tensor rows =
        a.rows.view({-1}).narrow(0, first_row * 64 + first_byte, 32 * 64).view({32, 64});
    fp8_product_out(out, {a.rows, a.scale}, {rows, scales.narrow(0, scale, 1)}, Fp8Sums::split);
  };
  CHECK_NOTHROW(multiply(1, 0, 4));
  CHECK_THROWS_AS(multiply(1, 0, 1), tptrain::InternalError);
  CHECK_THROWS_AS(multiply(1, 8, 4), tptrain::InternalError);
}

TEST_CASE("products of FP8 are those of what the casts stored, and near fp64", "[kernels]") {
  struct Product {
    int64_t m, n, k;
  };
  for (const Product p : {Product{61, 48, 32}, Product{22, 144, 1056}, Product{1024, 512, 2048}}) {
    for (const bool gradient : {false, true}) {
      CAPTURE(p.m, p.n, p.k, gradient);
      const at::Tensor x = normal({p.m, p.k}, 5, 3.0), w = normal({p.n, p.k}, 6, 0.02);
      const Fp8Matrix a =
          to_fp8(on_device(x, at::kBFloat16), gradient ? Fp8::e5m2 : Fp8::e4m3, Fp8Form::rows);
      const Fp8Matrix b = to_fp8(on_device(w, at::kBFloat16), Fp8::e4m3, Fp8Form::rows);
      const auto stored = [](const Fp8Matrix& matrix) {
        return matrix.rows.cpu().to(at::kFloat).to(at::kDouble) *
               matrix.scale.cpu().to(at::kDouble);
      };
      // What casting takes on average is given back.
      const double given_back = (gradient ? 1.00327 : 1.00095) * 1.00095;
      const at::Tensor expected = at::mm(stored(a), stored(b).t()) * given_back;
      const at::Tensor exact = at::mm(x, w.t());
      const Fp8Operand left = {a.rows, a.scale}, right = {b.rows, b.scale};

      at::Tensor fp32 = on_device(at::full({p.m, p.n}, 7.0), at::kFloat);
      fp8_product_out(fp32, left, right, Fp8Sums::split);
      CHECK_CLOSE(fp32, expected, 2e-3);
      CHECK(signal_to_noise_db(fp32, exact) > (gradient ? 22.0 : 27.0));
      fp8_product_out(fp32, left, right, Fp8Sums::split, {}, Accumulate::add);
      CHECK_CLOSE(fp32, 2 * expected, 2e-3);

      at::Tensor wide = on_device(at::full({p.m, p.n + 16}, 7.0), at::kBFloat16);
      at::Tensor bf16 = wide.narrow(1, 0, p.n);
      fp8_product_out(bf16, left, right, Fp8Sums::fast);
      CHECK_CLOSE(bf16, expected, 1e-2);
      CHECK(signal_to_noise_db(bf16, exact) > (gradient ? 22.0 : 27.0));
      CHECK(wide.narrow(1, p.n, 16).eq(7.0).all().item<bool>());
      const at::Tensor bias = normal({p.n}, 7);
      fp8_product_out(bf16, left, right, Fp8Sums::fast, on_device(bias, at::kBFloat16));
      CHECK_CLOSE(bf16, expected + bias, 1e-2);
    }
  }
}

// Each cast shrinks by 0.1 to 0.3 %, always the same way: over the products of a deep model that
// adds up, and its gradient norm would fall short by some percent.
TEST_CASE("products of FP8 are neither smaller nor larger on average than those of what was cast",
          "[kernels]") {
  const std::vector<std::pair<const char*, std::function<at::Tensor(int64_t)>>> kinds = {
      {"normal",
       [](int64_t seed) {
         return normal({512, 2048}, seed);
       }},
      {"Laplace",
       [](int64_t seed) {
         return normal({512, 2048}, seed) * (-at::rand({512, 2048}, at::kDouble).log()).sqrt();
       }},
      {"heavy tails", [](int64_t seed) {
         return normal({512, 2048}, seed) * normal({512, 2048}, seed + 100) *
                normal({512, 2048}, seed + 200);
       }}};
  for (const auto& [name, values] : kinds) {
    for (const bool gradient : {false, true}) {
      // Like a gradient: what the two have in common adds up, instead of cancelling out.
      const at::Tensor w = values(11), x = w + 0.5 * values(12);
      const Fp8Matrix a =
          to_fp8(on_device(x, at::kBFloat16), gradient ? Fp8::e5m2 : Fp8::e4m3, Fp8Form::rows);
      const Fp8Matrix b = to_fp8(on_device(w, at::kBFloat16), Fp8::e4m3, Fp8Form::rows);
      at::Tensor out = on_device(at::zeros({512, 512}), at::kFloat);
      fp8_product_out(out, {a.rows, a.scale}, {b.rows, b.scale}, Fp8Sums::split);
      const at::Tensor exact = at::mm(x, w.t());
      const double share = (out.to(at::kCPU, at::kDouble) * exact).sum().item<double>() /
                           exact.square().sum().item<double>();
      CAPTURE(name, gradient, share);
      CHECK(std::abs(share - 1.0) < 1e-3);  // 2e-3 and 4e-3 without
    }
  }
}

TEST_CASE("a cast to FP8 of columns that products do not take says so", "[kernels]") {
  const std::string message = message_of([] {
    to_fp8(at::zeros({16, 24}, at::kBFloat16), Fp8::e4m3, Fp8Form::rows);
  });
  CHECK(contains(message, "kernels::to_fp8 got sizes [16, 24]"));
  CHECK(contains(message, "a multiple of 16"));
}

TEST_CASE("swiglu and its backward find the largest magnitude of what they return", "[kernels]") {
  for (const int64_t rows : {1, 37, 2048}) {
    const at::Tensor gate_up = on_device(normal({rows, 352}, 21, 2.0), at::kBFloat16);
    const at::Tensor grad = on_device(normal({rows, 176}, 22, 1e-3), at::kBFloat16);
    const at::Tensor amax = fp8_amax(gate_up), grad_amax = fp8_amax(grad);
    REQUIRE(amax.defined() == gate_up.is_cuda());  // elsewhere casts look for it
    const at::Tensor output = swiglu(gate_up, amax);
    const at::Tensor grad_gate_up = swiglu_backward(grad, gate_up, grad_amax);
    CHECK(same_bits(output, swiglu(gate_up)));
    CHECK(same_bits(grad_gate_up, swiglu_backward(grad, gate_up)));
    const auto same_casts = [](const at::Tensor& x, Fp8 type, const at::Tensor& known) {
      const Fp8Matrix with = to_fp8(x, type, Fp8Form::both, {}, known);
      const Fp8Matrix without = to_fp8(x, type, Fp8Form::both);
      return same_bits(with.scale, without.scale) &&
             same_bits(with.rows.view(at::kByte), without.rows.view(at::kByte)) &&
             same_bits(with.columns.view(at::kByte), without.columns.view(at::kByte));
    };
    CHECK(same_casts(output, Fp8::e4m3, amax));
    CHECK(same_casts(grad_gate_up, Fp8::e5m2, grad_amax));
  }
  at::Tensor gate_up = on_device(at::ones({4, 352}, at::kDouble), at::kBFloat16);
  gate_up[2][3] = NAN;
  const at::Tensor amax = fp8_amax(gate_up);
  const at::Tensor output = swiglu(gate_up, amax);
  CHECK(std::isnan(to_fp8(output, Fp8::e4m3, Fp8Form::rows, {}, amax).scale.item<float>()));
}
