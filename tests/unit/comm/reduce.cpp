// The arithmetic of the CPU collectives, without ranks.
#include "comm/reduce.h"

#include <ATen/ATen.h>

#include <cstring>
#include <limits>
#include <vector>

#include "support/catch.h"

namespace tptrain::testing {
namespace {

using comm::Element;
using comm::reduce_elements;
using comm::ReduceOp;

at::Tensor reduced(const std::vector<at::Tensor>& terms, Element element, ReduceOp op) {
  at::Tensor out = at::empty_like(terms[0]);
  std::vector<const void*> sources;
  for (const at::Tensor& term : terms) sources.push_back(term.const_data_ptr());
  reduce_elements(out.data_ptr(), sources.data(), static_cast<int>(sources.size()), out.numel(),
                  element, op);
  return out;
}

TEST_CASE("fp32 terms are added from left to right") {
  at::manual_seed(1);
  std::vector<at::Tensor> terms;
  for (int i = 0; i < 5; ++i) terms.push_back(at::randn({3001}) * 1000);
  at::Tensor expected = terms[0].clone();
  for (int i = 1; i < 5; ++i) expected = expected + terms[i];
  CHECK(at::equal(reduced(terms, Element::fp32, ReduceOp::sum), expected));
  CHECK(at::equal(reduced(terms, Element::fp32, ReduceOp::max),
                  std::get<0>(at::stack(terms).max(0))));
}

TEST_CASE("bf16 terms are added in fp32 and rounded once, as torch rounds") {
  at::manual_seed(2);
  std::vector<at::Tensor> terms;
  for (int i = 0; i < 4; ++i) terms.push_back((at::randn({3001}) * 100).to(at::kBFloat16));
  at::Tensor expected = terms[0].to(at::kFloat);
  for (int i = 1; i < 4; ++i) expected = expected + terms[i].to(at::kFloat);
  CHECK(at::equal(reduced(terms, Element::bf16, ReduceOp::sum), expected.to(at::kBFloat16)));

  // 256 + 1 + 1: bf16 holds no 257, so rounding after each term would lose both ones.
  const auto one_of = [](float x) { return at::full({1}, x, at::kBFloat16); };
  const at::Tensor sum = reduced({one_of(256), one_of(1), one_of(1)}, Element::bf16, ReduceOp::sum);
  CHECK(sum.to(at::kFloat).item<float>() == 258);
}

TEST_CASE("infinities and NaN survive a bf16 sum") {
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::tensor({infinity, -infinity, infinity, 3e38f}).to(at::kBFloat16);
  const at::Tensor y = at::tensor({1.f, 1.f, -infinity, 3e38f}).to(at::kBFloat16);
  const at::Tensor sum = reduced({x, y}, Element::bf16, ReduceOp::sum).to(at::kFloat);
  CHECK(sum[0].item<float>() == infinity);
  CHECK(sum[1].item<float>() == -infinity);
  CHECK(std::isnan(sum[2].item<float>()));
  CHECK(sum[3].item<float>() == infinity);
  // A NaN whose bits are all in the part that rounding drops must not turn into infinity.
  const uint16_t all_ones = 0x7fff;
  const uint16_t zero = 0;
  uint16_t out = 0;
  const void* sources[] = {&all_ones, &zero};
  reduce_elements(&out, sources, 2, 1, Element::bf16, ReduceOp::sum);
  CHECK((out & 0x7fffu) > 0x7f80u);
}

TEST_CASE("int64 sums and maxima are exact") {
  const at::Tensor x = at::full({5}, int64_t{1} << 60, at::kLong);
  const at::Tensor y = at::full({5}, -3, at::kLong);
  CHECK(at::equal(reduced({x, y}, Element::int64, ReduceOp::sum), x + y));
  CHECK(at::equal(reduced({y, x, y}, Element::int64, ReduceOp::max), x));
}

TEST_CASE("the output may be one of the terms") {
  at::Tensor x = at::arange(5000, at::kFloat);
  const at::Tensor y = at::ones({5000});
  const at::Tensor expected = x + y;
  const void* sources[] = {y.const_data_ptr(), x.const_data_ptr()};
  reduce_elements(x.data_ptr(), sources, 2, 5000, Element::fp32, ReduceOp::sum);
  CHECK(at::equal(x, expected));
}

}  // namespace
}  // namespace tptrain::testing
