#include "report/summary.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "base/text.h"
#include "base/work_display.h"

namespace tptrain::report {
namespace {

std::string state_of(const RunRecord& run) {
  if (!run.log.starts.empty()) {
    const Start& last = run.log.starts.back();
    if (last.done) return "done";
    if (last.end.starts_with("stopped")) return "stopped";
    if (!last.end.empty()) return "failed";
  }
  return run.metrics.steps.empty() ? "no step yet" : "running or killed";
}

std::string best_evaluation(const Metrics& metrics) {
  double best = kNoNumber;
  int64_t step = 0;
  for (const auto& [set, rows] : metrics.evaluations) {
    const std::vector<double>* losses = rows.find("eval_loss");
    for (size_t i = 0; losses != nullptr && i < losses->size(); ++i) {
      if (!std::isfinite((*losses)[i]) || (*losses)[i] >= best) continue;
      best = (*losses)[i];
      step = rows.steps()[i];
    }
    if (metrics.evaluations.size() > 1) break;  // sets are not to be compared: the first
  }
  return std::isnan(best) ? "" : cat(fixed(best, 4), " (step ", with_thousands(step), ")");
}

}  // namespace

std::vector<SourceUse> sources_of(const RunRecord& run) {
  constexpr std::string_view kPrefix = "sources/";
  constexpr std::string_view kCount = "/sequences";
  const Columns& rows = run.metrics.steps;
  std::vector<SourceUse> sources;
  for (const Columns::Column& column : rows.all()) {
    const std::string_view name = column.name;
    if (!name.starts_with(kPrefix) || !name.ends_with(kCount)) continue;
    if (name.size() <= kPrefix.size() + kCount.size()) continue;
    const std::string source(
        name.substr(kPrefix.size(), name.size() - kPrefix.size() - kCount.size()));
    const double sequences = rows.last(name);
    const double epoch = rows.last(cat(kPrefix, source, "/epoch"));
    if (std::isfinite(sequences)) sources.push_back({source, sequences, epoch});
  }
  return sources;
}

double recent(const Columns& rows, const std::string& column) {
  constexpr size_t kRows = 20;
  const std::vector<double>* values = rows.find(column);
  if (values == nullptr) return kNoNumber;
  std::vector<double> last;
  for (size_t i = values->size(); i > 0 && last.size() < kRows; --i) {
    if (std::isfinite((*values)[i - 1])) last.push_back((*values)[i - 1]);
  }
  if (last.empty()) return kNoNumber;
  std::nth_element(last.begin(), last.begin() + static_cast<int64_t>(last.size() / 2), last.end());
  return last[last.size() / 2];
}

namespace {

// Where logging.every_steps is not 1 the last steps may have no line of their own; a save and an
// evaluation say how far a run was, too.
int64_t last_step(const Metrics& metrics) {
  int64_t last = metrics.steps.steps().back();
  if (!metrics.saves.empty()) last = std::max(last, metrics.saves.steps().back());
  for (const auto& [name, rows] : metrics.evaluations)
    if (!rows.empty()) last = std::max(last, rows.steps().back());
  return last;
}

}  // namespace

double seconds_left(const RunRecord& run) {
  const Columns& rows = run.metrics.steps;
  if (rows.empty() || run.max_steps() == 0) return kNoNumber;
  const auto steps =
      static_cast<double>(std::max<int64_t>(0, run.max_steps() - last_step(run.metrics)));
  return steps * recent(rows, "step_time_s");
}

std::string utc_text(double seconds_since_1970) {
  if (!std::isfinite(seconds_since_1970) || std::abs(seconds_since_1970) > 1e11) return "";
  const auto seconds = static_cast<std::time_t>(seconds_since_1970);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[40] = {};
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &utc);
  return text;
}

Summary summary_of(const RunRecord& run) {
  const Columns& rows = run.metrics.steps;
  Summary s;
  s.state = state_of(run);
  if (!run.checkpoints.empty()) s.last_checkpoint = run.checkpoints.back().name;
  s.best_eval = best_evaluation(run.metrics);
  if (rows.empty()) return s;
  s.step = cat(last_step(run.metrics), run.max_steps() > 0 ? cat("/", run.max_steps()) : "");
  if (const double loss = rows.last("loss"); std::isfinite(loss)) s.loss = fixed(loss, 4);
  const double speed = recent(rows, "tokens_per_second");
  if (speed >= 0 && speed < 1e15) s.tokens_per_second = with_thousands(std::llround(speed));
  if (const double mfu = recent(rows, "mfu"); std::isfinite(mfu))
    s.mfu = fixed(100 * mfu, 1) + " %";
  const double memory = rows.last("peak_memory_bytes");
  if (memory >= 0 && memory < 1e18) s.peak_memory = human_bytes(std::llround(memory));
  const std::vector<double>* times = rows.find("time");
  if (times != nullptr && std::isfinite(times->back() - times->front()))
    s.duration = duration_text(times->back() - times->front());
  return s;
}

}  // namespace tptrain::report
