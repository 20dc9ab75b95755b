// The best evaluation of a training so far, and how many have passed since.
#pragma once

#include <cstdint>
#include <optional>

namespace tptrain::train {

class BestLoss {
 public:
  struct Evaluated {
    int64_t step = 0;
    double loss = 0;
  };
  /// patience: evaluations without a new best after which the training is to end; 0: it is not.
  explicit BestLoss(int64_t patience) : patience_(patience) {}

  /// In the order of the steps. A loss that is not a number is never the best.
  void add(int64_t step, double loss) {
    if (best_ ? loss < best_->loss : loss == loss) {
      best_ = {.step = step, .loss = loss};
      since_ = 0;
    } else {
      ++since_;
    }
  }
  const std::optional<Evaluated>& best() const { return best_; }
  bool is_out_of_patience() const { return patience_ > 0 && since_ >= patience_; }

 private:
  int64_t patience_;
  int64_t since_ = 0;
  std::optional<Evaluated> best_;
};

}  // namespace tptrain::train
