#include "metrics/tensorboard_writer.h"

#include <unistd.h>

#include <cmath>
#include <initializer_list>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "formats/tensorboard_events.h"
#include "metrics/appended_file.h"

namespace tptrain::metrics {

namespace {

namespace fs = std::filesystem;
using formats::TensorboardScalar;

/// TensorBoard takes a file by "tfevents" in its name, and the files of a directory in the order of
/// their names.
fs::path new_file(const fs::path& directory, double time) {
  create_directories_durably(directory, FailAs::data_error);
  const std::string start = cat("events.out.tfevents.", static_cast<int64_t>(time), ".");
  std::error_code ignored;
  int number = 0;
  fs::path path;
  do {
    path = directory / cat(start, number++, ".tptrain");
  } while (fs::exists(path, ignored));
  return path;
}

}  // namespace

struct TensorboardWriter::Impl {
  AppendedFile file;

  void scalars(double time, int64_t step, std::initializer_list<TensorboardScalar> values) {
    file.append(formats::tensorboard_scalars(time, step, {values.begin(), values.size()}));
  }
};

TensorboardWriter::TensorboardWriter(const fs::path& directory, int64_t last_step, double time)
    : impl_(new Impl{AppendedFile(new_file(directory, time))}) {
  impl_->file.append(formats::tensorboard_file_version(time) +
                     formats::tensorboard_restart(time, last_step + 1));
}

TensorboardWriter::~TensorboardWriter() = default;

std::string TensorboardWriter::name() const { return impl_->file.path().string(); }

void TensorboardWriter::step(const StepMetrics& metrics) {
  impl_->scalars(metrics.time, metrics.step,
                 {{"train/loss", metrics.loss},
                  {"train/grad_norm", metrics.grad_norm},
                  {"train/lr", metrics.lr},
                  {"train/tokens_seen", static_cast<double>(metrics.tokens_seen)},
                  {"train/epoch", metrics.epoch},
                  {"perf/step_time_s", metrics.step_time_s},
                  {"perf/tokens_per_second", metrics.tokens_per_second},
                  {"perf/tokens_per_second_per_rank", metrics.tokens_per_second_per_rank},
                  {"perf/tflops", metrics.tflops},
                  {"perf/peak_memory_bytes", static_cast<double>(metrics.peak_memory_bytes)}});
  for (const SourceProgress& source : metrics.sources) {
    const std::string tag = "train/epoch_of_source/" + source.name;
    impl_->scalars(metrics.time, metrics.step, {{tag, source.epoch}});
  }
  for (size_t i = 0; i < metrics.phases.size(); ++i) {
    if (metrics.phases[i] <= 0) continue;
    const std::string tag = cat("perf/phase/", name_of(static_cast<StepPhase>(i)), "_s");
    impl_->scalars(metrics.time, metrics.step, {{tag, metrics.phases[i]}});
  }
  if (metrics.mfu) impl_->scalars(metrics.time, metrics.step, {{"perf/mfu", *metrics.mfu}});
}

void TensorboardWriter::skipped(const SkippedStep&) {}

void TensorboardWriter::eval(const EvalMetrics& metrics) {
  impl_->scalars(metrics.time, metrics.step,
                 {{"eval/loss", metrics.loss}, {"eval/perplexity", metrics.perplexity()}});
  for (const EvalOfSet& set : metrics.sets) {
    const std::string tag = "eval/loss/" + set.name;
    impl_->scalars(metrics.time, metrics.step, {{tag, set.loss}});
  }
}

void TensorboardWriter::save(const SaveMetrics&) {}

}  // namespace tptrain::metrics
