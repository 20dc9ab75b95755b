#include <chrono>

#include "metrics/console.h"

namespace tptrain::metrics {

namespace {

constexpr std::chrono::milliseconds kRedrawInterval{100};

}  // namespace

void ProgressDisplay::update(const StepMetrics& metrics, double eta_s) {
  if (!line_.on_terminal()) return;
  const auto now = std::chrono::steady_clock::now();
  const bool due = !last_draw_ || now - *last_draw_ >= kRedrawInterval;
  // A line of the log may have taken its place.
  if (metrics.step < max_steps_ && line_.drawn() && !due) return;
  line_.draw(progress_line(metrics, max_steps_, eta_s, line_.width()));
  last_draw_ = now;
}

}  // namespace tptrain::metrics
