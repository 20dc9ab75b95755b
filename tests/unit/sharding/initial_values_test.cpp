// Initial values: any cut of a tensor, and any range of the cut, holds the bits of the whole
// tensor.
#include "sharding/initial_values.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <string>

#include "base/error.h"
#include "random/philox.h"
#include "support/catch.h"

namespace tptrain::sharding {
namespace {

constexpr Init kNormal = {.kind = Init::Kind::normal, .std = 0.02};

at::Tensor initial(const ShardSpec& spec, int64_t begin, int64_t end, uint64_t seed = 42,
                   at::ScalarType dtype = at::kFloat) {
  at::Tensor out = at::full({end - begin}, 7.0, at::TensorOptions().dtype(dtype));
  fill_initial(out, spec, begin, end, kNormal, seed);
  return out;
}

}  // namespace

TEST_CASE("every cut and every range holds the bits of the whole tensor", "[sharding]") {
  at::set_num_threads(1);
  const std::vector<int64_t> shape = {9, 5, 7};
  const at::Tensor whole = initial(whole_tensor("w", shape), 0, 315).view(shape);
  for (int64_t dim = 0; dim < 3; ++dim) {
    const int64_t middle = shape[dim] / 2;
    for (const auto& [first, last] :
         {std::pair{int64_t{0}, middle}, std::pair{middle, shape[dim]}}) {
      const ShardSpec spec = slice_of("w", shape, dim, first, last);
      const at::Tensor expected = whole.narrow(dim, first, last - first).contiguous().view({-1});
      const int64_t numel = spec.local_numel();
      for (int64_t begin = 0; begin < numel; begin += 5) {
        const int64_t end = std::min(numel, begin + 12);
        REQUIRE(at::equal(initial(spec, begin, end), expected.slice(0, begin, end)));
      }
    }
  }
}

TEST_CASE("element i is std times the normal number of global index i", "[sharding]") {
  const at::Tensor values = initial(whole_tensor("w", {11}), 0, 11);
  for (int64_t i = 0; i < 11; ++i) {
    const double normal = random::philox_normal(random::philox_key(42, "init/w"), i);
    CHECK(values[i].item<float>() == static_cast<float>(0.02 * normal));
  }
}

TEST_CASE("values depend on the seed and on the name", "[sharding]") {
  const at::Tensor values = initial(whole_tensor("w", {64}), 0, 64);
  CHECK_FALSE(at::equal(values, initial(whole_tensor("w", {64}), 0, 64, 43)));
  CHECK_FALSE(at::equal(values, initial(whole_tensor("v", {64}), 0, 64)));
}

TEST_CASE("threads change no bit; other dtypes get the rounded fp32 values", "[sharding]") {
  const ShardSpec spec = slice_of("w", {600, 700}, 1, 101, 502);
  at::set_num_threads(1);
  const at::Tensor one = initial(spec, 3, spec.local_numel());
  at::set_num_threads(2);
  const at::Tensor two = initial(spec, 3, spec.local_numel());
  at::set_num_threads(1);
  CHECK(at::equal(one, two));
  CHECK(
      at::equal(initial(spec, 3, 1000, 42, at::kBFloat16), one.slice(0, 0, 997).to(at::kBFloat16)));
}

TEST_CASE("uniform values fill their bounds, and any cut has the bits of the whole", "[sharding]") {
  constexpr Init kUniform = {.kind = Init::Kind::uniform, .bound = 0.25};
  at::Tensor whole = at::empty({40 * 50});
  fill_initial(whole, whole_tensor("w", {40, 50}), 0, 40 * 50, kUniform, 42);
  CHECK(whole.min().item<float>() >= -0.25);
  CHECK(whole.max().item<float>() < 0.25);
  CHECK(whole.abs().max().item<float>() > 0.249);
  // Of 2,000 values: the standard deviation of their mean is 0.0032.
  CHECK(std::abs(whole.mean().item<double>()) < 0.013);
  CHECK(whole.std().item<double>() == Approx(0.25 / std::sqrt(3.0)).epsilon(0.05));
  at::Tensor part = at::empty({100}, at::TensorOptions().dtype(at::kBFloat16));
  fill_initial(part, slice_of("w", {40, 50}, 1, 7, 17), 30, 130, kUniform, 42);
  const at::Tensor expected =
      whole.view({40, 50}).narrow(1, 7, 10).contiguous().view({-1}).slice(0, 30, 130);
  CHECK(at::equal(part, expected.to(at::kBFloat16)));
}

TEST_CASE("zeros and ones", "[sharding]") {
  at::Tensor out = at::full({5}, 7.0f);
  fill_initial(out, whole_tensor("n", {9}), 2, 7, {.kind = Init::Kind::ones}, 1);
  CHECK(at::equal(out, at::ones({5})));
  fill_initial(out, whole_tensor("n", {9}), 2, 7, {}, 1);
  CHECK(at::equal(out, at::zeros({5})));
}

TEST_CASE("a range or an output that does not fit is refused", "[sharding]") {
  at::Tensor out = at::zeros({5});
  CHECK_THROWS_WITH(
      fill_initial(out, whole_tensor("n", {9}), 5, 10, kNormal, 1),
      "internal error: elements [5, 10) of a slice of 'n': it must lie within [0, 9).");
  CHECK_THROWS_WITH(
      fill_initial(out, whole_tensor("n", {9}), 2, 6, kNormal, 1),
      "internal error: initial values of 'n' go to a tensor of 1 dims and 5 elements: "
      "it must be 1-D of 4 elements.");
}

template <typename Work>
double processor_seconds_of(const Work& work) {
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t start = std::clock();
    work();
    least = std::min(least, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  return least;
}

// A model of 0.5 G elements must not take minutes: measured in the time that this machine takes for
// as many values of the two functions that Box and Muller need. A sanitizer slows one of them
// alone.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("initial values come fast", "[sharding]") {
  at::set_num_threads(1);
  constexpr int64_t kCount = 4 << 20;
  const ShardSpec spec = whole_tensor("w", {kCount});
  at::Tensor out = at::zeros({kCount});
  const double seconds =
      processor_seconds_of([&] { fill_initial(out, spec, 0, kCount, kNormal, 1); });
  volatile double sum = 0;
  const double plain = processor_seconds_of([&] {
    double of_all = 0;
    for (int64_t i = 1; i <= kCount; ++i) {
      const double uniform = static_cast<double>(i) / kCount;
      of_all += std::sqrt(-2 * std::log(uniform)) * std::cos(6.28 * uniform);
    }
    sum = of_all;
  });
  INFO("fill_initial: " << kCount / seconds / 1e6
                        << " M elements/s, plain functions: " << kCount / plain / 1e6);
  CHECK(seconds < 5 * plain);
}
#endif

}  // namespace tptrain::sharding
