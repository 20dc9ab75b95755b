// The passes over memory beneath the step: sums of squares, the search for inf and nan, hashes.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

#include "support/catch.h"
#include "zero/gradient_norm.h"
#include "zero/nonfinite.h"
#include "zero/value_hash.h"

namespace tptrain::zero {

TEST_CASE("sums of squares: fp64, the same bits with any number of threads", "[zero]") {
  const at::Tensor values = at::arange(100003).to(at::kFloat).mul_(1e-3).sub_(31);
  const std::vector<at::Tensor> views = {values.slice(0, 0, 7), values.slice(0, 7, 70001),
                                         values.slice(0, 70001, 100003)};
  const auto sum_of = [](const std::vector<at::Tensor>& tensors) {
    return SumsOfSquares({tensors}, at::kCPU)().item<double>();
  };
  at::set_num_threads(1);
  const double one = sum_of(views);
  at::set_num_threads(2);
  const double two = sum_of(views);
  at::set_num_threads(1);
  CHECK(one == two);
  const double expected = values.to(at::kDouble).square().sum().item<double>();
  CHECK(std::abs(one - expected) < 1e-12 * expected);
  CHECK(sum_of({}) == 0);
  // 1e30 squared is beyond fp32, whose largest is 3.4e38.
  CHECK(sum_of({at::full({1}, 1e30f)}) > 9e59);
  const at::Tensor groups =
      SumsOfSquares({{at::full({2}, 3.0f)}, {}, {at::ones({1}), at::ones({4})}}, at::kCPU)();
  CHECK(at::equal(groups, at::tensor({18.0, 0.0, 5.0}, at::kDouble)));
}

TEST_CASE("sums of squares mark the tensors that hold inf or nan, where they have a word",
          "[zero]") {
  constexpr float kMax = std::numeric_limits<float>::max();
  const std::vector<at::Tensor> some = {at::full({70000}, kMax), at::full({3}, -kMax)};
  const std::vector<at::Tensor> others = {at::full({40000}, kMax)};
  const at::Tensor words = at::zeros({2});
  const SumsOfSquares sums({some, {}, others}, at::kCPU,
                           {{words.narrow(0, 0, 1), at::Tensor()}, {}, {words.narrow(0, 1, 1)}});
  sums();
  CHECK(at::isfinite(words).all().item<bool>());
  some[1][2] = std::numeric_limits<float>::infinity();  // it has no word
  sums();
  CHECK(at::isfinite(words).all().item<bool>());
  others[0][39999] = std::numeric_limits<float>::quiet_NaN();
  sums();
  CHECK(at::equal(at::isfinite(words), at::tensor({1, 0}).to(at::kBool)));
  others[0][39999] = 1;
  sums();  // a mark stays
  CHECK(at::equal(at::isfinite(words), at::tensor({1, 0}).to(at::kBool)));
}

TEST_CASE("gradients that are left out of the search keep their words", "[zero]") {
  const at::Tensor bad = at::full({5}, std::numeric_limits<float>::infinity());
  const at::Tensor marks = at::zeros({3});
  NonfiniteFlags({bad, at::Tensor(), at::ones({5})}, marks).update();
  CHECK(at::equal(at::isfinite(marks), at::tensor({0, 1, 1}).to(at::kBool)));
}

TEST_CASE("inf and nan are found wherever they are, large numbers are not taken for them",
          "[zero]") {
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const int64_t at : {0, 1, 16383, 16384, 70000, 99999}) {
      at::Tensor values = at::full({100000}, -std::numeric_limits<float>::max());
      const std::vector<at::Tensor> gradients = {at::zeros({3}), values, at::zeros({0})};
      const at::Tensor marks = at::zeros({3});
      NonfiniteFlags search(gradients, marks);
      search.update();
      CHECK(at::isfinite(marks).all().item<bool>());
      values[at] = poison;
      search.update();
      CHECK(at::equal(at::isfinite(marks), at::tensor({1, 0, 1}).to(at::kBool)));
      values[at] = 0;
      search.update();  // a mark stays
      CHECK_FALSE(std::isfinite(marks[1].item<float>()));
    }
  }
}

TEST_CASE("a hash changes with any one bit and with the order of elements", "[zero]") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor values = at::arange(1000).to(dtype);
    const auto hash = value_hash(values).item<int64_t>();
    CHECK(value_hash(values.clone()).item<int64_t>() == hash);
    const at::ScalarType word = dtype == at::kFloat ? at::kInt : at::kShort;
    for (const int64_t element : {0, 1, 500, 999}) {
      for (int64_t bit = 0; bit < (dtype == at::kFloat ? 32 : 16); ++bit) {
        at::Tensor other = values.clone();
        other.view(word)[element].bitwise_xor_(int64_t{1} << bit);
        CHECK(value_hash(other).item<int64_t>() != hash);
      }
    }
    at::Tensor swapped = values.clone();
    swapped[3] = values[4];
    swapped[4] = values[3];
    CHECK(value_hash(swapped).item<int64_t>() != hash);
    CHECK(value_hash(values.flip(0).contiguous()).item<int64_t>() != hash);
    // The bits count, not the value: -0 is not 0.
    CHECK(value_hash(at::full({5}, -0.0).to(dtype)).item<int64_t>() !=
          value_hash(at::zeros({5}).to(dtype)).item<int64_t>());
  }
  CHECK(value_hash(at::zeros({0})).item<int64_t>() == 0);
}

TEST_CASE("the hash by whole-tensor operations, as on CUDA, is the hash of the loop", "[zero]") {
  for (const int64_t numel : {1, 7, 1 << 20, (1 << 20) + 1, 3 * (1 << 20) + 5}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor values = at::arange(numel).sub_(1000).to(dtype);
      CHECK(value_hash(values).item<int64_t>() == value_hash_by_operations(values).item<int64_t>());
    }
  }
}

}  // namespace tptrain::zero
