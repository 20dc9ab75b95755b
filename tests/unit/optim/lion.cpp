// Lion against the formula in plain Python and against itself wherever its shard is cut and
// whatever its state is kept in. What it shares with AdamW (predicate, parts, refusals) is in
// adamw.cpp.
#include "optim/adamw_reference.h"

using namespace tptrain::optim;
using namespace tptrain::testing;
namespace config = tptrain::config;

namespace {

constexpr int64_t kElements = 8;

at::Tensor gradient_of(int64_t step) {
  const at::Tensor i = at::arange(kElements, at::kDouble);
  return (i * 0.7 + 0.3 * static_cast<double>(step)).sin() * (i + 1.0) / 8.0;
}

UpdateRange fresh_lion(const at::Tensor& master, const RuleOptions& options) {
  UpdateRange range = fresh(master, options);
  range.slots.resize(1);
  return range;
}

}  // namespace

TEST_CASE("lion: twenty updates are those of plain Python", "[optim]") {
  // scripts/golden/update_rules.py
  const std::vector<double> master = {0.941518632,  0.530390246, -0.387766607, -0.930997621,
                                      -0.601786947, 0.29687219,  0.940555185,  0.719048954};
  const std::vector<double> exp_avg = {-0.000801534891, -0.00257287248, -0.00349891957,
                                       -0.0019905785,   0.00202533658,  0.00670361862,
                                       0.00912801955,   0.00701954341};
  UpdateRange range = fresh_lion(at::arange(kElements, at::kDouble).cos(),
                                 {.beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1});
  const auto lion =
      update_rule(config::OptimizerType::lion).update_of({range}, {.device = device()});
  const at::Tensor updates = scalar(0.0);
  for (int64_t step = 1; step <= 20; ++step) {
    range.gradient.copy_(gradient_of(step) * 2.0);
    lion->run(step_of(updates, {.learning_rate = 1e-2, .gradient_scale = 0.5}));
  }
  CHECK_CLOSE(range.master, at::tensor(master, at::kDouble), 1e-6);
  CHECK_CLOSE(range.slots[0], at::tensor(exp_avg, at::kDouble), 1e-6);
}

TEST_CASE("lion: an element's update does not depend on its shard, bf16 state included",
          "[optim]") {
  const int64_t size = 10007;
  for (const at::ScalarType master_type : {at::kFloat, at::kBFloat16}) {
    for (const at::ScalarType slot_type : {at::kFloat, at::kBFloat16}) {
      const auto trained = [&](const std::vector<int64_t>& cuts) {
        UpdateRange whole = fresh_lion(normal({size}, 1), {.weight_decay = 0.1});
        whole.master = whole.master.to(master_type);
        whole.slots[0] = whole.slots[0].to(slot_type);
        whole.gradient.copy_(normal({size}, 2));
        std::vector<UpdateRange> ranges;
        int64_t begin = 0;
        for (const int64_t count : cuts) {
          UpdateRange part = whole;
          part.master = whole.master.narrow(0, begin, count);
          part.slots[0] = whole.slots[0].narrow(0, begin, count);
          part.gradient = whole.gradient.narrow(0, begin, count);
          if (master_type == at::kBFloat16)
            part.rounding = RoundingSite{tptrain::sharding::whole_tensor("w", {size}), begin};
          ranges.push_back(std::move(part));
          begin += count;
        }
        const auto lion = update_rule(config::OptimizerType::lion)
                              .update_of(ranges, {.device = device(), .seed = 3});
        const at::Tensor updates = scalar(0.0);
        for (int step = 0; step < 3; ++step) lion->run(step_of(updates, {.learning_rate = 1e-2}));
        return whole;
      };
      const UpdateRange whole = trained({size}), cut = trained({3, 5001, 5003});
      CHECK(same_bits(cut.master, whole.master));
      CHECK(same_bits(cut.slots[0], whole.slots[0]));
    }
  }
}

TEST_CASE("rules are known by their names and by what they keep", "[optim]") {
  CHECK(rule_keeping({"exp_avg_sq", "exp_avg"}) == "adamw");
  CHECK(rule_keeping({"exp_avg"}) == "lion");
  CHECK(rule_keeping({"something"}).empty());
  for (const char* name : config::Words<config::OptimizerType>::list)
    CHECK(update_rule(*config::meaning<config::OptimizerType>(name)).name() == name);
  std::vector<UpdateRange> ranges = {fresh(normal({8}, 8), {})};
  CHECK(contains(message_of([&] {
                   update_rule(config::OptimizerType::lion).update_of(ranges, {.device = device()});
                 }),
                 "range 0 has 2 slots of state: it must have 1: exp_avg"));
}
