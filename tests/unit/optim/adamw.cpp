// AdamW in fp32 against the header's formula in fp64 and against ATen's own fused kernel; the
// predicate; independence of where an element lies. bf16 state is in adamw_bf16.cpp.
#include "optim/adamw.h"

#include "optim/adamw_reference.h"

using namespace tptrain::optim;
using namespace tptrain::testing;

TEST_CASE("twenty updates follow the formula", "[optim]") {
  at::set_num_threads(1);
  for (const int64_t size : {1, 7, 172, 4099}) {
    for (const double decay : {0.0, 0.1}) {
      CAPTURE(size, decay);
      const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = decay};
      const AdamWOptions other{.beta1 = 0.8,
                               .beta2 = 0.999,
                               .eps = 1e-6,
                               .weight_decay = decay,
                               .learning_rate_scale = 0.1};
      const at::Tensor start = normal({size}, 1);
      std::vector<AdamWRange> ranges = {fresh(start, options), fresh(start, other)};
      Formula formula{start, at::zeros_like(start), at::zeros_like(start)};
      Formula other_formula = formula;
      at::Tensor updates = scalar(0.0);
      for (int64_t t = 1; t <= 20; ++t) {
        const at::Tensor gradient = normal({size}, 100 + static_cast<uint64_t>(t), 0.01);
        const double lr = 1e-3 * static_cast<double>(t);
        for (AdamWRange& range : ranges) range.gradient.copy_(gradient);
        const at::Tensor before = ranges[0].gradient.clone();
        adamw_update(ranges, updates, scalar(0.5), flag(true), {.learning_rate = lr});
        formula.update(gradient * 0.5, options, lr, t);
        other_formula.update(gradient * 0.5, other, lr * other.learning_rate_scale, t);
        REQUIRE(same_bits(ranges[0].gradient, before));  // only read
      }
      CHECK(updates.item<float>() == 20.0f);
      CHECK_CLOSE(ranges[0].master, formula.p, 1e-6);
      CHECK_CLOSE(ranges[0].exp_avg, formula.m, 1e-6);
      CHECK_CLOSE(ranges[0].exp_avg_sq, formula.v, 1e-6);
      CHECK_CLOSE(ranges[1].master, other_formula.p, 1e-6);
    }
  }
}

TEST_CASE("ten updates agree with ATen's fused AdamW", "[optim]") {
  at::set_num_threads(1);
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};
  const at::Tensor start = normal({1000}, 2);
  std::vector<AdamWRange> ranges = {fresh(start, options)};
  const AdamWRange theirs = fresh(start, options);
  at::Tensor updates = scalar(0.0);
  const at::Tensor step = scalar(0.0);
  for (uint64_t t = 1; t <= 10; ++t) {
    const at::Tensor gradient = normal({1000}, 200 + t).to(device(), at::kFloat);
    ranges[0].gradient.copy_(gradient);
    adamw_update(ranges, updates, scalar(1.0), flag(true), {.learning_rate = 1e-2});
    step.add_(1.0);
    const std::vector<at::Tensor> p = {theirs.master}, g = {gradient}, m = {theirs.exp_avg},
                                  v = {theirs.exp_avg_sq}, none = {}, steps = {step};
    at::_fused_adamw_(p, g, m, v, none, steps, 1e-2, options.beta1, options.beta2,
                      options.weight_decay, options.eps, false, false);
  }
  CHECK_CLOSE(ranges[0].master, theirs.master, 1e-6);
  CHECK_CLOSE(ranges[0].exp_avg, theirs.exp_avg, 1e-6);
  CHECK_CLOSE(ranges[0].exp_avg_sq, theirs.exp_avg_sq, 1e-6);
}

TEST_CASE("a step that is not finite leaves every bit as it is, and the next one counts on",
          "[optim]") {
  at::set_num_threads(1);
  std::vector<AdamWRange> ranges = {fresh(normal({333}, 3), {.weight_decay = 0.1})};
  at::Tensor updates = scalar(0.0);
  ranges[0].gradient.copy_(normal({333}, 4));
  adamw_update(ranges, updates, scalar(1.0), flag(true), {.learning_rate = 1e-3});
  const AdamWRange before = {.master = ranges[0].master.clone(),
                             .exp_avg = ranges[0].exp_avg.clone(),
                             .exp_avg_sq = ranges[0].exp_avg_sq.clone()};
  ranges[0].gradient.fill_(std::numeric_limits<double>::quiet_NaN());
  adamw_update(ranges, updates, scalar(std::numeric_limits<double>::quiet_NaN()), flag(false),
               {.learning_rate = 1e-3});
  CHECK(updates.item<float>() == 1.0f);
  CHECK(same_bits(ranges[0].master, before.master));
  CHECK(same_bits(ranges[0].exp_avg, before.exp_avg));
  CHECK(same_bits(ranges[0].exp_avg_sq, before.exp_avg_sq));
  ranges[0].gradient.copy_(normal({333}, 5));
  adamw_update(ranges, updates, scalar(1.0), flag(true), {.learning_rate = 1e-3});
  CHECK(updates.item<float>() == 2.0f);
  CHECK(ranges[0].master.isfinite().all().item<bool>());
}

TEST_CASE("an element's update does not depend on where its shard is cut", "[optim]") {
  const at::Tensor start = normal({100003}, 6);
  const at::Tensor gradient = normal({100003}, 7).to(device(), at::kFloat);
  const auto update = [&](const std::vector<int64_t>& cuts, int threads) {
    at::set_num_threads(threads);
    const AdamWRange whole = fresh(start, {.weight_decay = 0.1});
    whole.gradient.copy_(gradient);
    std::vector<AdamWRange> ranges;
    int64_t begin = 0;
    for (const int64_t size : cuts) {
      ranges.push_back({.master = whole.master.narrow(0, begin, size),
                        .exp_avg = whole.exp_avg.narrow(0, begin, size),
                        .exp_avg_sq = whole.exp_avg_sq.narrow(0, begin, size),
                        .gradient = whole.gradient.narrow(0, begin, size),
                        .options = whole.options});
      begin += size;
    }
    at::Tensor updates = scalar(0.0);
    for (int step = 0; step < 3; ++step) {
      whole.gradient.copy_(gradient);
      adamw_update(ranges, updates, scalar(0.7), flag(true), {.learning_rate = 1e-2});
    }
    at::set_num_threads(1);
    return whole;
  };
  const AdamWRange whole = update({100003}, 1);
  for (const auto& [cuts, threads] :
       std::vector<std::pair<std::vector<int64_t>, int>>{{{50001, 50002}, 1},
                                                         {{3, 99999, 1}, 1},
                                                         {{33333, 33333, 33337}, 1},
                                                         {{100003}, 2},
                                                         {{7, 99996}, 2}}) {
    CAPTURE(cuts.size(), cuts[0], threads);
    const AdamWRange cut = update(cuts, threads);
    CHECK(same_bits(cut.master, whole.master));
    CHECK(same_bits(cut.exp_avg, whole.exp_avg));
    CHECK(same_bits(cut.exp_avg_sq, whole.exp_avg_sq));
  }
}

TEST_CASE("a range whose tensors do not belong together is refused", "[optim]") {
  std::vector<AdamWRange> ranges = {fresh(normal({8}, 8), {})};
  at::Tensor updates = scalar(0.0);
  ranges[0].gradient = at::zeros({7}, ranges[0].master.options());
  CHECK(contains(message_of([&] {
                   adamw_update(ranges, updates, scalar(1.0), flag(true), {.learning_rate = 1e-3});
                 }),
                 "gradient of range 0"));
  CHECK(contains(message_of([&] {
                   adamw_update(ranges, updates, scalar(1.0), flag(true), {.learning_rate = 1e-3});
                 }),
                 "its master holds 8 elements"));
  CHECK(updates.item<float>() == 0.0f);
}
