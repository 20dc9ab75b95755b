#include "train/recording.h"

#include <chrono>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "config/parse.h"
#include "metrics/jsonl_writer.h"
#include "metrics/tensorboard_writer.h"
#include "train/hang_timeout.h"

namespace tptrain::train {
namespace {

namespace fs = std::filesystem;

/// resolved_config.yaml is that of the last start; resolved_config.<step>.yaml of the one that
/// began behind that step (".2": the second of other settings there).
void keep_settings(const fs::path& run_dir, const std::string& yaml, int64_t first_step) {
  write_file_atomically(run_dir / "resolved_config.yaml", yaml);
  std::error_code ignored;
  for (int number = 1;; ++number) {
    const fs::path path =
        run_dir / cat("resolved_config.", first_step, number > 1 ? cat(".", number) : "", ".yaml");
    if (!fs::exists(path, ignored)) return write_file_atomically(path, yaml);
    if (read_file(path, kMaxRunFileBytes, FailAs::checkpoint_error) == yaml) return;
  }
}

void add_tensorboard(metrics::Recorder& recorder, const fs::path& run_dir, int64_t first_step,
                     Logger& log) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  try {
    recorder.add(
        std::make_unique<metrics::TensorboardWriter>(run_dir / "tensorboard", first_step, now));
  } catch (const Error& error) {
    log.warn(cat("there will be no curves for TensorBoard: ", error.what()));
  }
}

}  // namespace

Recording begin_recording(comm::MpiSession& session, const ResolvedConfig& resolved,
                          int64_t first_step, Logger& log, TerminalLine& terminal) {
  const config::RunConfig& run = resolved.run;
  const fs::path run_dir = run.run_dir;
  Recording recording{.recorder = {}, .progress = {}, .best_loss = BestLoss(run.eval.patience)};
  nlohmann::json evaluations = nlohmann::json::array();
  comm::agree(session, [&] {
    if (session.rank() != 0) return;
    keep_settings(run_dir, config::to_yaml(run), first_step);
    auto jsonl = std::make_unique<metrics::JsonlWriter>(run_dir / "metrics.jsonl", first_step);
    for (const metrics::EvalMetrics& one : jsonl->earlier_evaluations())
      evaluations.push_back({one.step, one.loss});
    recording.recorder.emplace([&log](const std::string& message) { log.warn(message); });
    recording.recorder->add(std::move(jsonl));
    if (run.logging.tensorboard) add_tensorboard(*recording.recorder, run_dir, first_step, log);
    recording.progress.emplace(run.train.max_steps, terminal);
  });
  // JSON has no NaN: it travels as null.
  for (const auto& one : nlohmann::json::parse(session.broadcast(evaluations.dump(), 0)))
    recording.best_loss.add(one[0].get<int64_t>(), one[1].is_null()
                                                       ? std::numeric_limits<double>::quiet_NaN()
                                                       : one[1].get<double>());
  return recording;
}

}  // namespace tptrain::train
