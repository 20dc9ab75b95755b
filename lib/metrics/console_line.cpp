#include <cmath>

#include "base/text.h"
#include "metrics/step_metrics.h"

namespace tptrain::metrics {

std::string console_line(const StepMetrics& metrics) {
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  std::string line =
      cat("step: ", metrics.step, "  loss: ", fixed(metrics.loss, 4),
          "  grad_norm: ", fixed(metrics.grad_norm, 4),
          "  memory: ", fixed(static_cast<double>(metrics.peak_memory_bytes) / kGiB, 2), "GiB(",
          fixed(100.0 * metrics.memory_fraction, 2),
          "%)  tps: ", with_thousands(std::llround(metrics.tokens_per_second_per_rank)),
          "  tflops: ", fixed(metrics.tflops, 2));
  if (metrics.mfu) line += cat("  mfu: ", fixed(100.0 * *metrics.mfu, 2), "%");
  return line;
}

}  // namespace tptrain::metrics
