// The numbers of a training as TensorBoard's curves: one event file a start of the run.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "metrics/recorder.h"

namespace tptrain::metrics {

/// Tags: docs/metrics.md. A record that cannot be written whole is taken back.
class TensorboardWriter final : public Sink {
 public:
  /// A new file in `directory`, which is made where it is missing. Readers drop what earlier files
  /// say of steps beyond `last_step`. Throws DataError where it cannot be written.
  TensorboardWriter(const std::filesystem::path& directory, int64_t last_step, double time);
  ~TensorboardWriter() override;
  std::string name() const override;
  void step(const StepMetrics& metrics) override;
  /// Writes nothing: a curve has a gap there.
  void skipped(const SkippedStep& step) override;
  void eval(const EvalMetrics& metrics) override;
  /// Writes nothing: metrics.jsonl has it.
  void save(const SaveMetrics& metrics) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::metrics
