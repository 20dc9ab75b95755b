// Which steps are outliers: those whose loss or gradient norm lies far above what the steps before
// it had, in units of their own spread. Decides only; the update itself is predicated on the
// device, by bounds that are known before the step begins.
//
// The bound of a window of values is median + threshold * max(1.4826 * MAD, median / 100): the
// median of the distances from the median (MAD), times that factor, estimates the standard
// deviation of a normal distribution and, unlike it, does not grow by the outliers themselves
// (Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", JASA 1993). Values that
// hardly differ would make an outlier of anything: hence the floor of a hundredth.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace tptrain::train {

using config::GuardAction;

/// The name under which a checkpoint keeps it.
inline constexpr const char* kOutlierGuard = "outlier_guard";

class OutlierGuard {
 public:
  struct Bounds {
    float loss;
    float norm;
  };

  explicit OutlierGuard(const config::GuardConfig& config) : config_(config) {}

  bool is_on() const { return config_.action != GuardAction::none; }
  GuardAction action() const { return config_.action; }

  /// For the step: by the values of the last `window` steps that were applied up to the one before
  /// its predecessor, since the host reads a step's numbers when the next one is under way already.
  /// Infinite as long as there are fewer.
  Bounds bounds_for(int64_t step) const;
  /// A step that was applied, in rising order.
  void add(int64_t step, double loss, double norm);
  /// An outlier was met. False where it is one too many.
  bool count_outlier();
  int64_t outliers() const { return outliers_; }
  int64_t limit() const { return config_.limit; }

  /// Global batches that were passed over by going back: batch `step + passed_over()` is the
  /// step's.
  int64_t passed_over() const { return passed_over_; }
  /// The run has gone back to an earlier step, whose state this is by now, but for these.
  void rolled_back(int64_t outliers, int64_t passed_over);

  /// Whether anything of it must outlive a restart.
  bool has_state() const { return is_on() || outliers_ > 0; }
  /// What a checkpoint keeps of it, exactly.
  std::string to_text() const;
  /// "": nothing was kept. Throws CheckpointError, naming the checkpoint, where it is no such text.
  void restore(const std::string& text, const std::string& checkpoint);

 private:
  struct Seen {
    int64_t step;
    float loss;
    float norm;
  };
  std::vector<Seen> window_before(int64_t step) const;

  config::GuardConfig config_;
  std::deque<Seen> seen_;  // two more than a window, at most
  int64_t outliers_ = 0;
  int64_t passed_over_ = 0;
};

/// Of a window of values, at least one.
double outlier_bound(std::vector<double> values, double threshold);

}  // namespace tptrain::train
