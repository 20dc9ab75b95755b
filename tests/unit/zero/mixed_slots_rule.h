// A rule that keeps one slot as optimizer.moments_dtype says and another in fp32 whatever that
// says: a mean of gradients, and the sum of their squares, which bf16 would cease to add to.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "optim/update_rule.h"

namespace tptrain::testing {

class MixedSlotsUpdate final : public optim::Update {
 public:
  explicit MixedSlotsUpdate(std::vector<optim::UpdateRange> ranges) : ranges_(std::move(ranges)) {}
  int parts() const override { return ranges_.empty() ? 0 : ranges_.back().part + 1; }
  void begin(const optim::UpdateStep& step) override {
    if (step.finite.item<bool>()) step.updates.add_(1.0f);
  }
  void apply(int part, const optim::UpdateStep& step) override {
    if (!step.finite.item<bool>()) return;
    for (optim::UpdateRange& range : ranges_) {
      if (range.part != part) continue;
      const at::Tensor g = range.gradient * step.gradient_scale;
      const at::Tensor mean = range.slots.at(0).to(at::kFloat).lerp(g, 0.1);
      range.slots.at(0).copy_(mean);
      at::Tensor& squares = range.slots.at(1);
      squares.add_(g * g);
      range.master.sub_(mean / (squares.sqrt() + 1e-8) * step.learning_rate.item<double>());
      if (range.weights.defined()) range.weights.copy_(range.master);
    }
  }

 private:
  std::vector<optim::UpdateRange> ranges_;
};

class MixedSlotsRule final : public optim::UpdateRule {
 public:
  std::string_view name() const override { return "mixed slots"; }
  optim::Unit unit(const parameters::Parameter&) const override { return optim::Unit::element; }
  bool takes_bf16_gradients() const override { return false; }
  std::vector<optim::Slot> slots(optim::Unit,
                                 const config::OptimizerConfig& options) const override {
    return {{.name = "mean", .dtype = optim::scalar_type(options.moments_dtype)},
            {.name = "squares", .dtype = at::kFloat}};
  }
  const std::vector<std::string>& all_slots() const override {
    static const std::vector<std::string> names = {"mean", "squares"};
    return names;
  }
  std::unique_ptr<optim::Update> update_of(std::vector<optim::UpdateRange> ranges,
                                           const optim::UpdateSettings&) const override {
    return std::make_unique<MixedSlotsUpdate>(std::move(ranges));
  }
};

}  // namespace tptrain::testing
