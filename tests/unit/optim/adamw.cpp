// AdamW in fp32 against the header's formula in fp64 and against ATen's own fused kernel; the
// predicate; independence of where an element lies. bf16 state is in adamw_bf16.cpp.
#include "optim/adamw_reference.h"
#include "optim/update_rule.h"

using namespace tptrain::optim;
using namespace tptrain::testing;

TEST_CASE("twenty updates follow the formula", "[optim]") {
  at::set_num_threads(1);
  for (const int64_t size : {1, 7, 172, 4099}) {
    for (const double decay : {0.0, 0.1}) {
      CAPTURE(size, decay);
      const RuleOptions options{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = decay};
      const RuleOptions other{.beta1 = 0.8,
                              .beta2 = 0.999,
                              .eps = 1e-6,
                              .weight_decay = decay,
                              .learning_rate_scale = 0.1};
      const at::Tensor start = normal({size}, 1);
      std::vector<UpdateRange> ranges = {fresh(start, options), fresh(start, other)};
      Formula formula{start, at::zeros_like(start), at::zeros_like(start)};
      Formula other_formula = formula;
      AdamWUpdate adamw(ranges, {.device = device()});
      const at::Tensor updates = scalar(0.0);
      for (int64_t t = 1; t <= 20; ++t) {
        const at::Tensor gradient = normal({size}, 100 + static_cast<uint64_t>(t), 0.01);
        const double lr = 1e-3 * static_cast<double>(t);
        for (UpdateRange& range : ranges) range.gradient.copy_(gradient);
        const at::Tensor before = ranges[0].gradient.clone();
        adamw.update(step_of(updates, {.learning_rate = lr, .gradient_scale = 0.5}));
        formula.update(gradient * 0.5, options, lr, t);
        other_formula.update(gradient * 0.5, other, lr * other.learning_rate_scale, t);
        REQUIRE(same_bits(ranges[0].gradient, before));  // only read
      }
      CHECK(updates.item<float>() == 20.0f);
      CHECK_CLOSE(ranges[0].master, formula.p, 1e-6);
      CHECK_CLOSE(ranges[0].slots[0], formula.m, 1e-6);
      CHECK_CLOSE(ranges[0].slots[1], formula.v, 1e-6);
      CHECK_CLOSE(ranges[1].master, other_formula.p, 1e-6);
    }
  }
}

TEST_CASE("ten updates agree with ATen's fused AdamW", "[optim]") {
  at::set_num_threads(1);
  const RuleOptions options{.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};
  const at::Tensor start = normal({1000}, 2);
  std::vector<UpdateRange> ranges = {fresh(start, options)};
  const UpdateRange theirs = fresh(start, options);
  AdamWUpdate adamw(ranges, {.device = device()});
  const at::Tensor updates = scalar(0.0), step = scalar(0.0);
  for (uint64_t t = 1; t <= 10; ++t) {
    const at::Tensor gradient = normal({1000}, 200 + t).to(device(), at::kFloat);
    ranges[0].gradient.copy_(gradient);
    adamw.update(step_of(updates, {.learning_rate = 1e-2}));
    step.add_(1.0);
    const std::vector<at::Tensor> p = {theirs.master}, g = {gradient}, m = {theirs.slots[0]},
                                  v = {theirs.slots[1]}, none = {}, steps = {step};
    at::_fused_adamw_(p, g, m, v, none, steps, 1e-2, options.beta1, options.beta2,
                      options.weight_decay, options.eps, false, false);
  }
  CHECK_CLOSE(ranges[0].master, theirs.master, 1e-6);
  CHECK_CLOSE(ranges[0].slots[0], theirs.slots[0], 1e-6);
  // On CUDA theirs takes 1 - 0.999f for 0.001.
  CHECK_CLOSE(ranges[0].slots[1], theirs.slots[1], device().is_cuda() ? 5e-5 : 1e-6);
}

TEST_CASE("a step that is not finite leaves every bit as it is, and the next one counts on",
          "[optim]") {
  at::set_num_threads(1);
  std::vector<UpdateRange> ranges = {fresh(normal({333}, 3), {.weight_decay = 0.1})};
  AdamWUpdate adamw(ranges, {.device = device()});
  const at::Tensor updates = scalar(0.0);
  ranges[0].gradient.copy_(normal({333}, 4));
  adamw.update(step_of(updates, {}));
  const UpdateRange before = {.master = ranges[0].master.clone(),
                              .slots = {ranges[0].slots[0].clone(), ranges[0].slots[1].clone()}};
  ranges[0].gradient.fill_(std::numeric_limits<double>::quiet_NaN());
  adamw.update(step_of(
      updates, {.gradient_scale = std::numeric_limits<double>::quiet_NaN(), .finite = false}));
  CHECK(updates.item<float>() == 1.0f);
  CHECK(same_bits(ranges[0].master, before.master));
  CHECK(same_bits(ranges[0].slots[0], before.slots[0]));
  CHECK(same_bits(ranges[0].slots[1], before.slots[1]));
  ranges[0].gradient.copy_(normal({333}, 5));
  adamw.update(step_of(updates, {}));
  CHECK(updates.item<float>() == 2.0f);
  CHECK(ranges[0].master.isfinite().all().item<bool>());
}

TEST_CASE("an element's update does not depend on where its shard is cut", "[optim]") {
  const at::Tensor start = normal({100003}, 6);
  const at::Tensor gradient = normal({100003}, 7).to(device(), at::kFloat);
  const auto update = [&](const std::vector<int64_t>& cuts, int threads) {
    at::set_num_threads(threads);
    const UpdateRange whole = fresh(start, {.weight_decay = 0.1});
    whole.gradient.copy_(gradient);
    std::vector<UpdateRange> ranges;
    int64_t begin = 0;
    for (const int64_t size : cuts) {
      ranges.push_back(cut(whole, begin, begin + size));
      begin += size;
    }
    AdamWUpdate adamw(ranges, {.device = device()});
    const at::Tensor updates = scalar(0.0);
    for (int step = 0; step < 3; ++step) {
      adamw.update(step_of(updates, {.learning_rate = 1e-2, .gradient_scale = 0.7}));
    }
    at::set_num_threads(1);
    return whole;
  };
  const UpdateRange whole = update({100003}, 1);
  for (const auto& [cuts, threads] :
       std::vector<std::pair<std::vector<int64_t>, int>>{{{50001, 50002}, 1},
                                                         {{3, 99999, 1}, 1},
                                                         {{33333, 33333, 33337}, 1},
                                                         {{100003}, 2},
                                                         {{7, 99996}, 2}}) {
    CAPTURE(cuts.size(), cuts[0], threads);
    const UpdateRange cut = update(cuts, threads);
    CHECK(same_bits(cut.master, whole.master));
    CHECK(same_bits(cut.slots[0], whole.slots[0]));
    CHECK(same_bits(cut.slots[1], whole.slots[1]));
  }
}

TEST_CASE("many ranges, tiny ones and none: each element is updated once", "[optim]") {
  // Sizes around what a CUDA block takes (2048) and around the packs of four that it moves.
  std::vector<int64_t> sizes = {0, 1, 3, 4, 5, 896, 2047, 2048, 2049, 4096, 10007};
  for (int64_t i = 0; i < 300; ++i) sizes.push_back(1 + i % 17);
  int64_t numel = 0;
  for (const int64_t size : sizes) numel += size;
  const RuleOptions decaying{.weight_decay = 0.1};
  const at::Tensor start = normal({numel}, 9), gradient = normal({numel}, 10);
  const UpdateRange whole = fresh(start, decaying), parted = fresh(start, decaying);
  whole.gradient.copy_(gradient);
  parted.gradient.copy_(gradient);
  std::vector<UpdateRange> ranges;
  int64_t begin = 0;
  for (const int64_t size : sizes) {
    ranges.push_back(cut(parted, begin, begin + size));
    begin += size;
  }
  AdamWUpdate of_whole({whole}, {.device = device()}), of_ranges(ranges, {.device = device()});
  const at::Tensor updates = scalar(0.0), more_updates = scalar(0.0);
  for (int step = 0; step < 3; ++step) {
    of_whole.update(step_of(updates, {.learning_rate = 1e-2}));
    of_ranges.update(step_of(more_updates, {.learning_rate = 1e-2}));
  }
  CHECK(same_bits(parted.master, whole.master));
  CHECK(same_bits(parted.slots[0], whole.slots[0]));
  CHECK(same_bits(parted.slots[1], whole.slots[1]));

  AdamWUpdate of_nothing(
      {}, {.device = device()});  // a rank may own no element: it counts all the same
  of_nothing.update(step_of(updates, {}));
  CHECK(updates.item<float>() == 4.0f);
  of_nothing.update(step_of(updates, {.finite = false}));
  CHECK(updates.item<float>() == 4.0f);
}

TEST_CASE("parts in any order are the update, to the bit", "[optim]") {
  const std::vector<int64_t> sizes = {3, 5000, 896, 1, 2048, 70001};
  const std::vector<int> parts = {0, 0, 1, 3, 3, 4};  // part 2 has no ranges
  std::vector<UpdateRange> ranges, whole;
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (std::vector<UpdateRange>* all : {&ranges, &whole}) {
      all->push_back(fresh(normal({sizes[i]}, 20 + i), {.weight_decay = i % 2 == 0 ? 0.1 : 0.0}));
      all->back().gradient.copy_(normal({sizes[i]}, 30 + i));
    }
    ranges[i].part = parts[i];
  }
  AdamWUpdate in_parts(ranges, {.device = device()}), at_once(whole, {.device = device()});
  const at::Tensor updates = scalar(0.0), other_updates = scalar(0.0);
  for (int t = 1; t <= 4; ++t) {
    const Numbers numbers{.learning_rate = 1e-2 / t, .gradient_scale = 0.7, .finite = t != 3};
    const UpdateStep step = step_of(updates, numbers);
    in_parts.begin(step);
    CHECK(updates.item<float>() == static_cast<float>(t < 3 ? t : t - 1));
    // begin() has taken them.
    step.learning_rate.fill_(1e3);
    step.gradient_scale.fill_(1e3);
    for (const int part : {4, 1, 0, 2, 3}) in_parts.apply(part, step);
    at_once.update(step_of(other_updates, numbers));
    for (size_t i = 0; i < sizes.size(); ++i) {
      CHECK(same_bits(ranges[i].master, whole[i].master));
      CHECK(same_bits(ranges[i].slots[0], whole[i].slots[0]));
      CHECK(same_bits(ranges[i].slots[1], whole[i].slots[1]));
    }
  }
  std::swap(ranges[0].part, ranges[5].part);
  CHECK(contains(message_of([&] { AdamWUpdate(ranges, {.device = device()}); }),
                 "range 1 is of part 0: it must follow the ranges of the parts before it"));
}

TEST_CASE("an update leaves the largest magnitude of what it has written", "[optim]") {
  UpdateRange asking = fresh(normal({8}, 8), {});
  asking.amax = at::zeros({2}, asking.master.options().dtype(at::kInt));
  CHECK(contains(message_of([&] { AdamWUpdate({asking}, {.device = device()}); }),
                 "the largest magnitude of range 0"));
  for (const at::ScalarType master_type : {at::kFloat, at::kBFloat16}) {
    for (const at::ScalarType gradient_type : {at::kFloat, at::kBFloat16}) {
      for (const bool weights : {true, false}) {
        for (const int64_t size : {1, 7, 2048, 70001}) {
          CAPTURE(at::toString(master_type), at::toString(gradient_type), weights, size);
          UpdateRange whole = fresh(normal({size}, 11), {.weight_decay = 0.1});
          whole.master = whole.master.to(master_type);
          whole.gradient = normal({size}, 12).to(device(), gradient_type);
          if (weights) whole.weights = at::zeros_like(whole.master, at::kBFloat16);
          if (master_type == at::kBFloat16)
            whole.rounding =
                RoundingSite{.spec = tptrain::sharding::whole_tensor("w", {size}), .begin = 0};
          whole.amax = at::full({1}, 0x7f000000, whole.master.options().dtype(at::kInt));
          // Two ranges of one tensor, and one that nobody asks about.
          std::vector<UpdateRange> ranges = {cut(whole, 0, size / 3), cut(whole, size / 3, size),
                                             fresh(normal({5}, 13) * 1000, {})};
          AdamWUpdate adamw(ranges, {.device = device()});
          const at::Tensor updates = scalar(0.0);
          for (const bool finite : {false, true, true, false}) {
            const at::Tensor before = whole.amax.clone();
            adamw.update(step_of(updates, {.learning_rate = 0.3, .finite = finite}));
            if (!finite) CHECK(same_bits(whole.amax, before));
            if (updates.item<float>() == 0.0f) continue;
            CHECK(whole.amax.view(at::kFloat).item<float>() ==
                  whole.master.to(at::kBFloat16).to(at::kFloat).abs().max().item<float>());
          }
        }
      }
    }
  }
}

TEST_CASE("tensors that do not belong together are refused", "[optim]") {
  std::vector<UpdateRange> ranges = {fresh(normal({8}, 8), {})};
  ranges[0].gradient = at::zeros({7}, ranges[0].master.options());
  const std::string message = message_of([&] { AdamWUpdate(ranges, {.device = device()}); });
  CHECK(contains(message, "gradient of range 0"));
  CHECK(contains(message, "its master holds 8 elements"));

  AdamWUpdate adamw({fresh(normal({8}, 8), {})}, {.device = device()});
  const at::Tensor updates = scalar(0.0);
  UpdateStep step = step_of(updates, {});
  step.learning_rate = scalar(1e-3);
  const std::string refusal = message_of([&] { adamw.update(step); });
  CHECK(contains(refusal, "learning_rate of an update"));
  CHECK(contains(refusal, "one Double on"));
  CHECK(updates.item<float>() == 0.0f);
}
