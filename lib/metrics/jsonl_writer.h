// metrics.jsonl: one object a line, whole line by whole line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "metrics/recorder.h"

namespace tptrain::metrics {

/// Doubles are written so that they read back to the same bits; nan and inf become null. A line
/// that cannot be written whole is taken back.
class JsonlWriter final : public Sink {
 public:
  /// Opens for appending; first drops lines with "step" beyond `last_step` and a torn last line (a
  /// crash), replacing the file atomically. Throws DataError: a line before the last that is no
  /// such object (named by file and number), a file that cannot be read or written; ConfigError: a
  /// FIFO.
  JsonlWriter(const std::filesystem::path& path, int64_t last_step);
  ~JsonlWriter() override;
  /// What the file held of evaluations up to `last_step`, in its order.
  const std::vector<EvalMetrics>& earlier_evaluations() const;
  std::string name() const override;
  void step(const StepMetrics& metrics) override;
  void skipped(const SkippedStep& step) override;
  void eval(const EvalMetrics& metrics) override;
  void save(const SaveMetrics& metrics) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Whether the file has an evaluation of that step; false where there is no such file. A run that
/// was stopped in one after its save owes it.
bool holds_evaluation(const std::filesystem::path& path, int64_t step);

}  // namespace tptrain::metrics
