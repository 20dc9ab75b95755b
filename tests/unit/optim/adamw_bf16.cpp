// AdamW with bf16 state: moments rounded to nearest, a bf16 copy of the weights, and a bf16 master
// rounded stochastically, on every layout alike.
#include <functional>
#include <set>

#include "optim/adamw_reference.h"
#include "optim/stochastic_rounding.h"
#include "random/philox.h"

using namespace tptrain::optim;
using namespace tptrain::testing;
using tptrain::sharding::ShardSpec;
using tptrain::sharding::slice_of;
using tptrain::sharding::whole_tensor;

namespace {

constexpr uint64_t kSeed = 77;

enum class Types { fp32, bf16_moments, bf16_master, all_bf16 };

UpdateRange fresh_as(Types types, const at::Tensor& master, const ShardSpec& spec,
                     const RuleOptions& options) {
  UpdateRange range = fresh(master, options);
  if (types == Types::bf16_moments || types == Types::all_bf16) {
    range.slots[0] = range.slots[0].to(at::kBFloat16);
    range.slots[1] = range.slots[1].to(at::kBFloat16);
  }
  if (types == Types::bf16_master || types == Types::all_bf16) {
    range.master = range.master.to(at::kBFloat16);
    range.rounding = RoundingSite{spec, 0};
  }
  range.weights = at::zeros(range.master.sizes(), range.master.options().dtype(at::kBFloat16));
  return range;
}

AdamWUpdate adamw_of(const std::vector<UpdateRange>& ranges) {
  return {ranges, {.device = device(), .seed = kSeed}};
}

/// The elements of a global tensor that a slice holds, 1-D.
at::Tensor slice(const at::Tensor& global, const ShardSpec& spec) {
  const at::Tensor shaped = global.view(spec.global_shape);
  if (spec.whole()) return shaped.reshape({-1}).clone();
  return shaped.narrow(spec.dim, spec.begin, spec.end - spec.begin).reshape({-1}).clone();
}

uint16_t expected_bits(std::array<uint32_t, 2> key, uint32_t update, int64_t element) {
  const uint64_t group = static_cast<uint64_t>(element) / 8;
  const std::array<uint32_t, 4> words = tptrain::random::philox_rounds(
      {static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), update, 0}, key);
  const uint32_t word = words[static_cast<size_t>(element % 8 / 2)];
  return static_cast<uint16_t>(element % 2 == 0 ? word : word >> 16);
}

/// How many units of bf16's last place lie between two bf16 tensors, at most.
int64_t largest_distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.cpu().view(at::kShort).to(at::kLong) - b.cpu().view(at::kShort).to(at::kLong))
      .abs()
      .max()
      .item<int64_t>();
}

const std::vector<ShardSpec> kSpecs = {
    whole_tensor("a.weight", {24, 40}),
    slice_of("a.weight", {24, 40}, 0, 6, 18),
    slice_of("a.weight", {24, 40}, 1, 8, 24),  // rows begin with a group of eight
    slice_of("a.weight", {24, 41}, 1, 3, 20),  // rows begin anywhere
    slice_of("a.weight", {6, 5000}, 1, 1250, 2500),
    slice_of("a.bias", {300}, 0, 100, 201),
};

}  // namespace

TEST_CASE("an element's random bits are its own, in every slice and cut", "[optim]") {
  const std::array<uint32_t, 2> key = rounding_key(kSeed, "a.weight");
  for (const ShardSpec& spec : kSpecs) {
    const int64_t numel = spec.local_numel();
    const at::Tensor global = at::arange(spec.global_numel(), at::kLong).view(spec.global_shape);
    const at::Tensor elements = slice(global, spec);
    for (const int64_t first : {int64_t{0}, int64_t{3}, numel / 3, numel - 1}) {
      for (const int64_t begin : {int64_t{0}, (numel - first) / 2}) {
        const RoundingSite site{spec, first};
        const int64_t end = numel - first;
        CAPTURE(spec.global_shape[0], spec.dim, first, begin, end);
        std::vector<uint16_t> bits(static_cast<size_t>(end - begin));
        fill_rounding_bits(site, key, 5, begin, end, bits.data());
        const SliceBlocks blocks = blocks_of(spec);
        bool same = true;
        for (int64_t i = begin; i < end; ++i) {
          const auto element = elements[first + i].item<int64_t>();
          const int64_t block = (first + i) / blocks.local_block;
          same = same && bits[static_cast<size_t>(i - begin)] == expected_bits(key, 5, element) &&
                 element == block * blocks.global_block + blocks.global_begin + first + i -
                                block * blocks.local_block;
        }
        CHECK(same);
      }
    }
  }
}

TEST_CASE("bits differ between elements, updates, tensors and seeds; beyond 2^35 elements too",
          "[optim]") {
  std::set<std::vector<uint16_t>> seen;
  for (const uint64_t seed : {1, 2}) {
    for (const char* name : {"a.weight", "b.weight"}) {
      for (const uint32_t update : {1u, 2u}) {
        for (const int64_t first : {int64_t{0}, int64_t{8}, int64_t{1} << 35}) {
          const RoundingSite site{whole_tensor(name, {1 << 20, 1 << 20}), first};
          std::vector<uint16_t> bits(8);
          fill_rounding_bits(site, rounding_key(seed, name), update, 0, 8, bits.data());
          seen.insert(bits);
        }
      }
    }
  }
  CHECK(seen.size() == 24);
}

TEST_CASE("bf16 state follows the formula within its roundings", "[optim]") {
  at::set_num_threads(1);
  const RuleOptions options{.weight_decay = 0.1, .learning_rate_scale = 0.5};
  const at::Tensor start = normal({4099}, 21);
  for (const Types types :
       {Types::fp32, Types::bf16_moments, Types::bf16_master, Types::all_bf16}) {
    CAPTURE(static_cast<int>(types));
    std::vector<UpdateRange> ranges = {
        fresh_as(types, start, whole_tensor("a.weight", {4099}), options)};
    AdamWUpdate adamw = adamw_of(ranges);
    Formula formula{start, at::zeros_like(start), at::zeros_like(start)};
    const at::Tensor updates = scalar(0.0);
    for (int64_t t = 1; t <= 10; ++t) {
      const at::Tensor gradient = normal({4099}, 300 + static_cast<uint64_t>(t), 0.01);
      ranges[0].gradient.copy_(gradient);
      const at::Tensor before = ranges[0].gradient.clone();
      adamw.update(step_of(updates, {.learning_rate = 2e-2, .gradient_scale = 0.5}));
      formula.update(gradient * 0.5, options, 1e-2, t);
      REQUIRE(same_bits(ranges[0].gradient, before));
    }
    // Ten roundings to nearest of numbers that shrink and grow: a few times 4e-3 of the largest.
    const bool bf16_moments = ranges[0].slots[0].scalar_type() == at::kBFloat16;
    CHECK_CLOSE(ranges[0].slots[0], formula.m, bf16_moments ? 1.5e-2 : 1e-6);
    CHECK_CLOSE(ranges[0].slots[1], formula.v, bf16_moments ? 1.5e-2 : 1e-6);
    const bool bf16_master = ranges[0].rounding.has_value();
    CHECK_CLOSE(ranges[0].master, formula.p, bf16_master ? 3e-2 : bf16_moments ? 2e-3 : 1e-6);
    CHECK(same_bits(ranges[0].weights, ranges[0].master.to(at::kBFloat16)));
  }
}

TEST_CASE("one update with bf16 moments computes in fp32 and rounds the moments once", "[optim]") {
  at::set_num_threads(1);
  const at::Tensor start = normal({333}, 22);
  const ShardSpec spec = whole_tensor("a.weight", {333});
  std::vector<UpdateRange> wide = {fresh_as(Types::fp32, start, spec, {})};
  std::vector<UpdateRange> narrow = {fresh_as(Types::bf16_moments, start, spec, {})};
  for (std::vector<UpdateRange>* ranges : {&wide, &narrow}) {
    (*ranges)[0].gradient.copy_(normal({333}, 23));
    adamw_of(*ranges).update(step_of(scalar(0.0), {.learning_rate = 1e-2, .gradient_scale = 0.37}));
  }
  CHECK(same_bits(narrow[0].master, wide[0].master));
  CHECK(same_bits(narrow[0].slots[0], wide[0].slots[0].to(at::kBFloat16)));
  CHECK(same_bits(narrow[0].slots[1], wide[0].slots[1].to(at::kBFloat16)));
}

TEST_CASE("a bf16 gradient updates as the same numbers in fp32 do, to the bit", "[optim]") {
  at::set_num_threads(1);
  const at::Tensor start = normal({5003}, 24);
  const ShardSpec spec = whole_tensor("a.weight", {5003});
  for (const Types types :
       {Types::fp32, Types::bf16_moments, Types::bf16_master, Types::all_bf16}) {
    std::vector<UpdateRange> wide = {fresh_as(types, start, spec, {})};
    std::vector<UpdateRange> narrow = {fresh_as(types, start, spec, {})};
    narrow[0].gradient = narrow[0].gradient.to(at::kBFloat16);
    for (std::vector<UpdateRange>* ranges : {&wide, &narrow}) {
      (*ranges)[0].gradient.copy_(normal({5003}, 25));  // bf16 numbers
      adamw_of(*ranges).update(step_of(scalar(0.0), {.learning_rate = 1e-2}));
    }
    CHECK(same_bits(narrow[0].master, wide[0].master));
    for (const size_t s : {size_t{0}, size_t{1}})
      CHECK(same_bits(narrow[0].slots[s], wide[0].slots[s]));
  }
}

TEST_CASE("stochastic rounding goes to a neighbour, and is right on average", "[optim]") {
  at::set_num_threads(1);
  // Updates of a tenth of bf16's last place: rounded to nearest, the weights would never move.
  const int64_t size = 1 << 15;
  std::vector<UpdateRange> ranges = {fresh_as(Types::bf16_master,
                                              at::full({size}, 1.0, at::kDouble),
                                              whole_tensor("a.weight", {size}), {})};
  AdamWUpdate adamw = adamw_of(ranges);
  const at::Tensor updates = scalar(0.0);
  const double step = 0.1 / 256;  // below 1 the last place of bf16 is 2^-8
  for (int t = 1; t <= 20; ++t) {
    ranges[0].gradient.fill_(1.0);  // Adam's update of a constant gradient is the learning rate
    const at::Tensor before = ranges[0].master.clone();
    adamw.update(step_of(updates, {.learning_rate = step}));
    CHECK(largest_distance(ranges[0].master, before) <= 1);
  }
  // Standard deviation of an element after 20 draws: sqrt(20 * 0.09) / 256; of the mean 2.9e-5.
  const double mean = ranges[0].master.to(at::kDouble).mean().item<double>();
  CHECK(std::abs(mean - (1.0 - 20 * step)) < 1.2e-4);
}

TEST_CASE("infinity and NaN are not rounded into something else", "[optim]") {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  // An update beyond fp32's range, and a NaN.
  const at::Tensor start = at::tensor({3e38, -3e38, nan}, at::kDouble);
  const ShardSpec spec = whole_tensor("a.weight", {3});
  std::vector<UpdateRange> ranges = {fresh_as(Types::bf16_master, start, spec, {})};
  ranges[0].gradient.copy_(at::tensor({-1.0, 1.0, 0.0}, at::kDouble));
  adamw_of(ranges).update(step_of(scalar(0.0), {.learning_rate = 3e38}));
  const at::Tensor result = ranges[0].master.cpu().to(at::kDouble);
  CHECK(result[0].item<double>() == infinity);
  CHECK(result[1].item<double>() == -infinity);
  CHECK(std::isnan(result[2].item<double>()));
}

TEST_CASE("bf16 state is bitwise the same for every slice of the tensor and every cut of a range",
          "[optim]") {
  const int64_t rows = 96, columns = 1100;
  const at::Tensor start = normal({rows * columns}, 24).to(at::kBFloat16);
  const auto gradient_of = [&](uint64_t t) { return normal({rows * columns}, 400 + t, 0.1); };
  const RuleOptions options{.weight_decay = 0.1};
  for (const Types types :
       {Types::fp32, Types::bf16_moments, Types::bf16_master, Types::all_bf16}) {
    const auto run = [&](const ShardSpec& spec, const std::vector<int64_t>& cuts, int threads) {
      at::set_num_threads(threads);
      const UpdateRange whole = fresh_as(types, slice(start, spec), spec, options);
      std::vector<UpdateRange> ranges;
      int64_t begin = 0;
      for (const int64_t end : cuts) {
        ranges.push_back(cut(whole, begin, end));
        begin = end;
      }
      ranges.push_back(cut(whole, begin, spec.local_numel()));
      AdamWUpdate adamw = adamw_of(ranges);
      const at::Tensor updates = scalar(0.0);
      for (uint64_t t = 1; t <= 3; ++t) {
        whole.gradient.copy_(slice(gradient_of(t), spec));
        adamw.update(step_of(updates, {.learning_rate = 1e-2, .gradient_scale = 0.7}));
      }
      at::set_num_threads(1);
      return whole;
    };
    const ShardSpec everything = whole_tensor("a.weight", {rows, columns});
    const UpdateRange reference = run(everything, {}, 1);
    struct Case {
      ShardSpec spec;
      std::vector<int64_t> cuts;
      int threads;
    };
    for (const Case& c :
         {Case{everything, {}, 2}, Case{everything, {1, 50001, 50002, 90007}, 1},
          Case{slice_of("a.weight", {rows, columns}, 0, 24, 72), {}, 1},
          Case{slice_of("a.weight", {rows, columns}, 0, 24, 72), {7, 30001}, 2},
          Case{slice_of("a.weight", {rows, columns}, 1, 275, 550), {}, 1},
          Case{slice_of("a.weight", {rows, columns}, 1, 275, 550), {5, 2048, 20001}, 1},
          Case{slice_of("a.weight", {rows, columns}, 1, 550, 1100), {3}, 2}}) {
      CAPTURE(static_cast<int>(types), c.spec.dim, c.spec.begin, c.cuts.size(), c.threads);
      const UpdateRange received = run(c.spec, c.cuts, c.threads);
      CHECK(same_bits(received.master, slice(reference.master, c.spec)));
      CHECK(same_bits(received.slots[0], slice(reference.slots[0], c.spec)));
      CHECK(same_bits(received.slots[1], slice(reference.slots[1], c.spec)));
      CHECK(same_bits(received.weights, slice(reference.weights, c.spec)));
    }
  }
}

TEST_CASE("a step that is not finite leaves bf16 state and weights as they are", "[optim]") {
  for (const Types types :
       {Types::fp32, Types::bf16_moments, Types::bf16_master, Types::all_bf16}) {
    CAPTURE(static_cast<int>(types));
    std::vector<UpdateRange> ranges = {
        fresh_as(types, normal({777}, 25), whole_tensor("a.weight", {777}), {.weight_decay = 0.1})};
    AdamWUpdate adamw = adamw_of(ranges);
    const at::Tensor updates = scalar(0.0);
    ranges[0].gradient.copy_(normal({777}, 26));
    adamw.update(step_of(updates, {.learning_rate = 1e-2}));
    ranges[0].weights.fill_(3.0);  // not the master's: they must stay as they are, not be restored
    UpdateRange before = ranges[0];
    for (at::Tensor* tensor : {&before.master, &before.slots[0], &before.slots[1], &before.weights})
      *tensor = tensor->clone();
    ranges[0].gradient.fill_(std::numeric_limits<double>::quiet_NaN());
    adamw.update(step_of(updates, {.learning_rate = 1e-2,
                                   .gradient_scale = std::numeric_limits<double>::infinity(),
                                   .finite = false}));
    CHECK(updates.item<float>() == 1.0f);
    CHECK(same_bits(ranges[0].master, before.master));
    CHECK(same_bits(ranges[0].slots[0], before.slots[0]));
    CHECK(same_bits(ranges[0].slots[1], before.slots[1]));
    CHECK(same_bits(ranges[0].weights, before.weights));
  }
}

TEST_CASE("bf16 state that does not fit is refused", "[optim]") {
  const auto refusal = [&](const std::function<void(UpdateRange&)>& spoil) {
    std::vector<UpdateRange> ranges = {
        fresh_as(Types::all_bf16, normal({8}, 27), whole_tensor("a.weight", {8}), {})};
    spoil(ranges[0]);
    return message_of([&] { adamw_of(ranges); });
  };
  CHECK(contains(refusal([](UpdateRange& range) { range.rounding.reset(); }),
                 "the bf16 master of range 0 holds 8 elements, without a rounding site"));
  CHECK(contains(refusal([](UpdateRange& range) { range.rounding->begin = 1; }),
                 "from element 1 of a slice of 8"));
  CHECK(
      contains(refusal([](UpdateRange& range) { range.slots[1] = range.slots[1].to(at::kFloat); }),
               "exp_avg_sq of range 0"));
  CHECK(contains(refusal([](UpdateRange& range) { range.gradient = range.gradient.to(at::kHalf); }),
                 "gradient of range 0 is Half"));
  CHECK(contains(refusal([](UpdateRange& range) { range.weights = range.weights.to(at::kFloat); }),
                 "weights of range 0"));
}
