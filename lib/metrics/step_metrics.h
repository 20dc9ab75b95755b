// The numbers of a step -> the console line, metrics.jsonl, the progress display. Rank 0 only;
// knows nothing of tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace tptrain::metrics {

struct StepMetrics {
  int64_t step = 0;  // steps done, the first logged one is 1
  double loss = 0;
  double grad_norm = 0;
  double lr = 0;
  int64_t tokens_seen = 0;
  double step_time_s = 0;
  double tokens_per_second = 0;  // all ranks
  double tokens_per_second_per_rank = 0;
  std::optional<double> mfu = {};  // fraction; absent where the device's peak is not known
  double tflops = 0;               // per rank
  int64_t peak_memory_bytes = 0;
  double memory_fraction = 0;  // of the device's or host's memory
};

/// "step: 20  loss: 8.1234  grad_norm: 1.2345  memory: 12.34GiB(25.00%)  tps: 12,345  tflops:
/// 123.45  mfu: 12.34%" (tps per rank; mfu left out where absent).
std::string console_line(const StepMetrics& metrics);

/// metrics.jsonl: one object a line, flushed line by line. Doubles are written so that they read
/// back to the same bits; nan and inf become null.
class JsonlWriter {
 public:
  /// Opens for appending; first drops lines with "step" beyond `last_step` and a torn last line (a
  /// crash), replacing the file atomically. Throws DataError: a line before the last that is no
  /// such object (named by file and number), a file that cannot be read or written.
  JsonlWriter(const std::filesystem::path& path, int64_t last_step);
  ~JsonlWriter();
  void step(const StepMetrics& metrics);
  void eval(int64_t step, double eval_loss, int64_t eval_tokens);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// "45s", "3m 5s", "2h 10m", "3d 4h"
std::string duration_text(double seconds);
/// "[====>     ] step 20/100  loss 8.1234  12,345 tokens/s  ETA 3m 5s", with fewer parts where it
/// would not fit into width - 1 columns.
std::string progress_line(const StepMetrics& metrics, int64_t max_steps, double eta_s, int width);

/// One line redrawn in place on a terminal: bar, step of steps, loss, rate, ETA. Nothing at all
/// where standard output is no terminal.
class ProgressDisplay {
 public:
  /// `first_step`: steps done when this process began (its first step is left out of the average
  /// behind the ETA). Draws where enabled && isatty.
  ProgressDisplay(int64_t first_step, int64_t max_steps, bool enabled);
  ~ProgressDisplay();  // ends the line
  /// Draws at most ten times a second, and always at the last step.
  void update(const StepMetrics& metrics);
  /// Clears the line, so that a log line can be printed; the next update draws it again.
  void clear();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::metrics
