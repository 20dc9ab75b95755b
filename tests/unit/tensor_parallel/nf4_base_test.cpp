// The base of an adapter in NF4: every cut between blocks has the numbers of the whole weight, and
// a cut within a block is refused by name.
#include "tensor_parallel/nf4_base.h"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::testing {
namespace {

using parameters::NamedSlice;
using parameters::Parameter;
using sharding::ShardSpec;
using tensor_parallel::Nf4Base;

constexpr int64_t kOut = 96, kIn = 640;

/// Values that are a function of name and element.
class Values final : public sharding::TensorSource {
 public:
  std::vector<sharding::TensorInfo> tensors() const override { return {}; }
  void read_slice(const ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    float* values = out.mutable_data_ptr<float>();
    for (const sharding::Run& run : sharding::runs_of(spec, begin, end)) {
      for (int64_t i = 0; i < run.count; ++i) {
        const int64_t element = run.global_begin + i;
        const auto seed =
            static_cast<double>(element) + 7.0 * static_cast<double>(spec.name.size());
        const double size = 1.0 + static_cast<double>(element / 4096 % 5);
        values[run.local_begin - begin + i] = static_cast<float>(size * std::sin(0.37 * seed));
      }
    }
  }
};

std::unique_ptr<Parameter> weight_of(const std::vector<ShardSpec>& specs) {
  auto weight = std::make_unique<Parameter>();
  weight->name = "packed";
  weight->trains = false;
  int64_t rows = 0;
  for (const ShardSpec& spec : specs) {
    const std::vector<int64_t> shape = spec.local_shape();
    weight->slices.push_back({.spec = spec, .offset = rows * shape[1]});
    rows += shape[0];
    weight->shape = {rows, shape[1]};
  }
  return weight;
}

at::Tensor values_of(Parameter& weight, at::ScalarType dtype = at::kFloat) {
  Nf4Base base({&weight}, {.dtype = dtype});
  base.load(Values());
  return weight.values().clone();
}

const std::vector<int64_t> kShape = {kOut, kIn};

TEST_CASE("slices of a weight in NF4 have the values of the whole") {
  const at::Tensor q = values_of(*weight_of({sharding::whole_tensor("q", kShape)}));
  const at::Tensor other = values_of(*weight_of({sharding::whole_tensor("other", kShape)}));
  at::Tensor exact = at::empty({kOut * kIn}, at::kFloat);
  Values().read_slice(sharding::whole_tensor("q", kShape), 0, kOut * kIn, exact);
  const double error = (q.flatten() - exact).abs().max().item<double>();
  CHECK(error > 0);
  CHECK(error < 0.8);  // 5 is the largest value, 0.152 of it half the widest gap of the 16
  // Two tensors packed, each cut by its rows.
  const at::Tensor packed = values_of(*weight_of(
      {sharding::slice_of("q", kShape, 0, 32, 64), sharding::slice_of("other", kShape, 0, 5, 96)}));
  CHECK(at::equal(packed.narrow(0, 0, 32), q.narrow(0, 32, 32)));
  CHECK(at::equal(packed.narrow(0, 32, 91), other.narrow(0, 5, 91)));
  const std::vector<std::pair<int64_t, int64_t>> ranges = {{0, 320}, {320, 640}, {64, 128}};
  for (const auto& [begin, end] : ranges) {
    CAPTURE(begin);
    const at::Tensor cut = values_of(*weight_of({sharding::slice_of("q", kShape, 1, begin, end)}));
    CHECK(at::equal(cut, q.narrow(1, begin, end - begin)));
  }
  CHECK(at::equal(values_of(*weight_of({sharding::whole_tensor("q", kShape)}), at::kBFloat16),
                  q.to(at::kBFloat16)));
  // One rank's slice is the whole, wherever rows end within blocks.
  const std::vector<int64_t> odd = {24, 27};
  const at::Tensor whole = values_of(*weight_of({sharding::whole_tensor("odd", odd)}));
  for (const int64_t dim : {0, 1}) {
    const ShardSpec all = sharding::slice_of("odd", odd, dim, 0, odd[static_cast<size_t>(dim)]);
    CHECK(at::equal(values_of(*weight_of({all})), whole));
  }
}

TEST_CASE("a product reads the weight in NF4 as it would its values") {
  const auto weight = weight_of({sharding::whole_tensor("q", kShape)});
  Nf4Base base({weight.get()}, {});
  base.load(Values());
  const at::Tensor values = weight->values().clone();
  const at::Tensor x = at::sin(at::arange(3 * kIn, at::kFloat)).view({3, 1, kIn});
  const at::Tensor product = tensor_parallel::linear(x, *weight, nullptr);
  const at::Tensor expected = at::matmul(x, values.t());
  CHECK((product - expected).abs().max().item<double>() <
        1e-5 * expected.abs().max().item<double>());
}

TEST_CASE("a cut within a block is refused by name, and a store counts what it takes") {
  const auto refusal = [](const ShardSpec& spec) {
    const auto weight = weight_of({spec});
    const auto problems = tensor_parallel::check_nf4_cuts({weight.get()}, 4);
    return problems.empty() ? std::string() : problems.front().text();
  };
  CHECK(refusal(sharding::whole_tensor("odd", {7, 9})).empty());
  CHECK(refusal(sharding::slice_of("odd", {7, 9}, 1, 0, 9)).empty());  // of one rank
  CHECK(refusal(sharding::slice_of("q", kShape, 0, 13, 29)).empty());
  CHECK(refusal(sharding::slice_of("q", kShape, 1, 160, 320))
            .find("tp_size 4 cuts q [96, 640] at "
                  "160 of dimension 1") != std::string::npos);
  CHECK_FALSE(refusal(sharding::slice_of("odd", {64, 9}, 0, 3, 10)).empty());
  CHECK(refusal(sharding::slice_of("odd", {70, 32}, 0, 2, 70)).empty());
  CHECK_FALSE(refusal(sharding::slice_of("odd", {70, 32}, 0, 1, 70)).empty());
  const auto weight = weight_of({sharding::whole_tensor("q", kShape)});
  const int64_t blocks = kOut * kIn / 64;
  const int64_t groups = (blocks + 255) / 256;
  CHECK(Nf4Base::bytes({weight.get()}, at::kBFloat16) ==
        256 * 4 + kOut * kIn / 2 + blocks + 4 * groups + 2 * kOut * kIn);
}

}  // namespace
}  // namespace tptrain::testing
