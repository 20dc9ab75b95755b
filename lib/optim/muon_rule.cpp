#include "optim/muon_rule.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "optim/element_update.h"

namespace tptrain::optim {
namespace {

// Liu et al., 2025, equation 4: what the root of the mean square of AdamW's updates is as a rule.
constexpr double kRootMeanSquare = 0.2;

/// `range` as one whose element rule reads or writes `work` in the place of master or slot.
UpdateRange momentum_range(const UpdateRange& range) {
  UpdateRange momentum = range;
  momentum.master = range.work;
  momentum.weights = at::Tensor();
  momentum.amax = at::Tensor();
  momentum.rounding.reset();
  return momentum;
}

UpdateRange step_range(const UpdateRange& range) {
  UpdateRange step = range;
  step.slots = {range.work};
  step.gradient = range.work;  // unused
  const int64_t longer = *std::max_element(range.matrix.begin(), range.matrix.end());
  step.options.update_scale = kRootMeanSquare * std::sqrt(static_cast<double>(longer));
  return step;
}

class MuonUpdate final : public Update {
 public:
  MuonUpdate(std::vector<UpdateRange> ranges, const UpdateSettings& settings)
      : exchange_(settings.exchange), iterations_(settings.newton_schulz_steps) {
    std::vector<UpdateRange> elements, momentum, steps;
    for (UpdateRange& range : ranges) {
      parts_ = std::max(parts_, range.part + 1);
      if (range.matrix.empty()) {
        elements.push_back(std::move(range));
        continue;
      }
      momentum.push_back(momentum_range(range));
      steps.push_back(step_range(range));
    }
    elements_ = element_update<AdamW>(std::move(elements), settings);
    if (exchange_ == nullptr) {
      if (momentum.empty()) return;
      throw InternalError(problem("an update of matrices").must("have an exchange of them"));
    }
    momentum_ = element_update<MuonMomentum>(std::move(momentum), settings);
    steps_ = element_update<MuonStep>(std::move(steps), settings);
    parts_ = std::max(parts_, exchange_->parts());
    newton_schulz_.emplace(exchange_->largest(), settings.device);
    counter_ = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(settings.device));
  }

  int parts() const override { return parts_; }

  // The three count the same update, each from where the run's counter stands.
  void begin(const UpdateStep& step) override {
    if (exchange_ != nullptr) {
      exchange_->prepare();
      has_begun_ = true;
      for (Update* update : {momentum_.get(), steps_.get()}) {
        counter_.copy_(step.updates);
        update->begin(of_matrices(step));
      }
    }
    elements_->begin(step);
  }

  void apply(int part, const UpdateStep& step) override {
    elements_->apply(part, step);
    // Before the first begin() there is nothing to apply, and nothing prepared to do it with.
    if (!has_begun_ || part < 0 || part >= exchange_->parts()) return;
    // The flag is the same on every rank: all of them come to the exchange, or none. On CUDA the
    // host does not know it: what is made of old values then goes nowhere.
    if (step.finite.is_cpu() && !*step.finite.const_data_ptr<bool>()) return;
    momentum_->apply(part, of_matrices(step));
    exchange_->gather(part);
    for (const MatrixBatch& batch : exchange_->batches(part)) (*newton_schulz_)(batch, iterations_);
    exchange_->scatter(part);
    steps_->apply(part, of_matrices(step));
  }

 private:
  UpdateStep of_matrices(const UpdateStep& step) const {
    UpdateStep own = step;
    own.updates = counter_;
    return own;
  }

  MatrixExchange* exchange_;
  int64_t iterations_;
  bool has_begun_ = false;
  int parts_ = 0;
  std::unique_ptr<Update> elements_;  // by AdamW
  std::unique_ptr<Update> momentum_;
  std::unique_ptr<Update> steps_;
  std::optional<NewtonSchulz> newton_schulz_;
  at::Tensor counter_;  // fp32 scalar: what momentum_ and steps_ take for the run's
};

}  // namespace

Unit MuonRule::unit(const parameters::Parameter& parameter) const {
  const bool of_layers = parameter.role == parameters::Role::column_parallel ||
                         parameter.role == parameters::Role::row_parallel;
  return of_layers && parameter.shape.size() == 2 ? Unit::matrix : Unit::element;
}

std::vector<Slot> MuonRule::slots(Unit unit, const config::OptimizerConfig& options) const {
  return unit == Unit::matrix ? slots_of<MuonMomentum>(options) : slots_of<AdamW>(options);
}

const std::vector<std::string>& MuonRule::all_slots() const {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> names = slot_names_of<MuonMomentum>();
    names.insert(names.end(), slot_names_of<AdamW>().begin(), slot_names_of<AdamW>().end());
    return names;
  }();
  return all;
}

std::unique_ptr<Update> MuonRule::update_of(std::vector<UpdateRange> ranges,
                                            const UpdateSettings& settings) const {
  return std::make_unique<MuonUpdate>(std::move(ranges), settings);
}

}  // namespace tptrain::optim
