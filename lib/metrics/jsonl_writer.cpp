#include "metrics/jsonl_writer.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "metrics/appended_file.h"

namespace tptrain::metrics {

namespace {

using nlohmann::ordered_json;

/// One line, or nothing where it is no object with an integer step.
std::optional<ordered_json> record_of(std::string_view line) {
  auto object = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return std::nullopt;
  return object;
}

struct Kept {
  std::string text;
  std::vector<EvalMetrics> evaluations;

  void add(std::string_view line, const ordered_json& record) {
    text.append(line).push_back('\n');
    const auto loss = record.find("eval_loss");
    if (loss == record.end()) return;
    // null stands for what is no number (see JsonlWriter::step): such an evaluation has been made.
    const double value =
        loss->is_number() ? loss->get<double>() : std::numeric_limits<double>::quiet_NaN();
    evaluations.push_back({.step = record["step"], .loss = value});
  }
};

/// `text` without the lines beyond `last_step` and without a torn last line; every kept line ends
/// with '\n'.
Kept truncated(std::string_view text, int64_t last_step, const std::filesystem::path& path) {
  Kept kept;
  int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t newline = text.find('\n');
    const bool last = newline == std::string_view::npos || newline + 1 == text.size();
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    const std::optional<ordered_json> record = record_of(line);
    if (!record && last) break;  // torn: the process ended while it wrote
    if (!record) {
      throw DataError(
          problem(cat("\"", line.substr(0, 80), line.size() > 80 ? "..." : "", "\""))
              .at(cat(path.string(), ":", number))
              .must("be a JSON object with an integer \"step\", as every line before the last")
              .remedy("Something other than tptrain changed the file: repair or remove the line, "
                      "or move the file away to begin a new one."));
    }
    if (record->at("step").get<int64_t>() <= last_step) kept.add(line, *record);
  }
  return kept;
}

}  // namespace

bool holds_evaluation(const std::filesystem::path& path, int64_t step) {
  if (!std::filesystem::is_regular_file(path)) return false;
  const std::string text = read_file(path);
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find("\"eval_loss\"") == std::string_view::npos) continue;
    const std::optional<ordered_json> record = record_of(line);
    if (record && record->at("step").get<int64_t>() == step) return true;
  }
  return false;
}

struct JsonlWriter::Impl {
  AppendedFile file;
  std::vector<EvalMetrics> earlier = {};
  void line(const ordered_json& object) { file.append(object.dump() + "\n"); }
};

JsonlWriter::JsonlWriter(const std::filesystem::path& path, int64_t last_step) {
  Kept kept;
  if (std::filesystem::is_regular_file(path)) {
    const std::string before = read_file(path);
    kept = truncated(before, last_step, path);
    if (kept.text != before) write_file_atomically(path, kept.text, FailAs::data_error);
  }
  impl_.reset(new Impl{AppendedFile(path), std::move(kept.evaluations)});
}

JsonlWriter::~JsonlWriter() = default;

const std::vector<EvalMetrics>& JsonlWriter::earlier_evaluations() const { return impl_->earlier; }

std::string JsonlWriter::name() const { return impl_->file.path().string(); }

// The library writes a double with as many digits as bring back the same bits; nan and inf, which
// JSON lacks, become null.
void JsonlWriter::step(const StepMetrics& metrics) {
  ordered_json object = {
      {"step", metrics.step},
      {"loss", metrics.loss},
      {"grad_norm", metrics.grad_norm},
      {"lr", metrics.lr},
      {"tokens_seen", metrics.tokens_seen},
      {"epoch", metrics.epoch},
  };
  for (const SourceProgress& source : metrics.sources) {
    object["sources"][source.name] = {{"sequences", source.sequences}, {"epoch", source.epoch}};
  }
  object.update({{"time", metrics.time}, {"step_time_s", metrics.step_time_s}});
  for (size_t i = 0; i < metrics.phases.size(); ++i) {
    if (metrics.phases[i] > 0)
      object["phases"][name_of(static_cast<StepPhase>(i))] = metrics.phases[i];
  }
  object.update({
      {"tokens_per_second", metrics.tokens_per_second},
      {"tokens_per_second_per_rank", metrics.tokens_per_second_per_rank},
      {"tflops", metrics.tflops},
  });
  if (metrics.mfu) object["mfu"] = *metrics.mfu;
  object["peak_memory_bytes"] = metrics.peak_memory_bytes;
  if (metrics.fp8_flushed) object["fp8_flushed"] = *metrics.fp8_flushed;
  if (metrics.fp8_saturated) object["fp8_saturated"] = *metrics.fp8_saturated;
  impl_->line(object);
}

void JsonlWriter::skipped(const SkippedStep& step) {
  impl_->line({{"step", step.step},
               {"skipped", step.reason},
               {"lr", step.lr},
               {"tokens_seen", step.tokens_seen},
               {"epoch", step.epoch},
               {"time", step.time}});
}

void JsonlWriter::eval(const EvalMetrics& metrics) {
  ordered_json object = {{"step", metrics.step},
                         {"eval_loss", metrics.loss},
                         {"eval_perplexity", metrics.perplexity()},
                         {"eval_tokens", metrics.target_tokens}};
  for (const EvalOfSet& set : metrics.sets) {
    object["eval_sets"][set.name] = {
        {"loss", set.loss}, {"perplexity", set.perplexity()}, {"tokens", set.target_tokens}};
  }
  object["time"] = metrics.time;
  impl_->line(object);
}

void JsonlWriter::save(const SaveMetrics& metrics) {
  impl_->line({{"step", metrics.step},
               {"save_stall_s", metrics.stall_s},
               {"save_s", metrics.save_s},
               {"save_bytes", metrics.bytes},
               {"time", metrics.time}});
}

}  // namespace tptrain::metrics
