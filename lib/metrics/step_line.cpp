#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/text.h"
#include "base/work_display.h"
#include "metrics/console.h"

namespace tptrain::metrics {

namespace {

constexpr double kAverageWeight = 0.1;  // of the newest step time: about the last 20 steps count

struct Parts {
  Parts(const StepMetrics& metrics, int64_t max_steps, double eta_s)
      : step(cat("step ", metrics.step, "/", max_steps)),
        loss(cat("  loss ", fixed(metrics.loss, 4))),
        norm(cat("  norm ", fixed(metrics.grad_norm, 2))),
        rate(cat("  ", with_thousands(std::llround(metrics.tokens_per_second)), " tokens/s")),
        mfu(metrics.mfu ? cat("  mfu ", fixed(100.0 * *metrics.mfu, 1), "%") : ""),
        eta(cat("  ETA ", duration_text(eta_s))) {}
  std::string step, loss, norm, rate, mfu, eta;
};

/// The first that fits, else the step alone, cut.
std::string fitting(const std::vector<std::string>& lines, const std::string& step, int width) {
  const auto room = static_cast<size_t>(std::max(0, width));
  for (const std::string& line : lines) {
    if (line.size() <= room) return line;
  }
  return step.substr(0, room);
}

}  // namespace

StepPace::StepPace(int64_t first_step, int64_t max_steps)
    : first_step_(first_step), max_steps_(max_steps), step_(first_step) {}

void StepPace::add(int64_t step, double step_time_s) {
  const bool begins = average_s_ == 0 || step_ <= first_step_ + 1;
  average_s_ = begins ? step_time_s : average_s_ + kAverageWeight * (step_time_s - average_s_);
  step_ = step;
}

double StepPace::seconds_left() const {
  return average_s_ * static_cast<double>(std::max<int64_t>(0, max_steps_ - step_));
}

std::string step_line(const StepMetrics& metrics, int64_t max_steps, double eta_s, int width) {
  const Parts p(metrics, max_steps, eta_s);
  return fitting(
      {p.step + p.loss + p.norm + p.rate + p.mfu + p.eta, p.step + p.loss + p.rate + p.mfu + p.eta,
       p.step + p.loss + p.rate + p.eta, p.step + p.loss + p.eta, p.step + p.loss},
      p.step, width);
}

std::string progress_line(const StepMetrics& metrics, int64_t max_steps, double eta_s, int width) {
  const double fraction =
      max_steps > 0
          ? std::clamp(static_cast<double>(metrics.step) / static_cast<double>(max_steps), 0.0, 1.0)
          : 0.0;
  const Parts p(metrics, max_steps, eta_s);
  // The last column stays free: a full line makes some terminals wrap, and \r would no longer reach
  // its beginning.
  return fitting({bar_text(fraction) + p.step + p.loss + p.rate + p.eta,
                  p.step + p.loss + p.rate + p.eta, p.step + p.loss + p.eta, p.step + p.loss},
                 p.step, width - 1);
}

}  // namespace tptrain::metrics
