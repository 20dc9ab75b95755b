#include "metrics/recorder.h"

#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::metrics {

void Recorder::add(std::unique_ptr<Sink> sink) { sinks_.push_back({.sink = std::move(sink)}); }

void Recorder::to_each(const std::function<void(Sink&)>& write) {
  for (Written& written : sinks_) {
    try {
      write(*written.sink);
    } catch (const DataError& error) {
      if (written.failed.note(error.what()))
        warn_(cat("metrics are lost, the training goes on: ", error.what()));
    }
  }
}

void Recorder::step(const StepMetrics& metrics) {
  to_each([&](Sink& sink) { sink.step(metrics); });
}
void Recorder::skipped(const SkippedStep& step) {
  to_each([&](Sink& sink) { sink.skipped(step); });
}
void Recorder::eval(const EvalMetrics& metrics) {
  to_each([&](Sink& sink) { sink.eval(metrics); });
}

void Recorder::save(const SaveMetrics& metrics) {
  to_each([&](Sink& sink) { sink.save(metrics); });
}

std::vector<std::string> Recorder::failures() const {
  std::vector<std::string> lines;
  for (const Written& written : sinks_) {
    const int64_t count = written.failed.count();
    if (count == 0) continue;
    lines.push_back(cat(written.sink->name(), ": ", count,
                        count == 1 ? " record is" : " records are",
                        " missing, the last because of ", written.failed.last_reason()));
  }
  return lines;
}

}  // namespace tptrain::metrics
