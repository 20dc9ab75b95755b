#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "base/printable.h"
#include "base/utf8.h"
#include "report/condense.h"
#include "report/page.h"
#include "report/time_share.h"

namespace tptrain::report {
namespace {

constexpr size_t kMostPoints = 1500;
constexpr size_t kMostMarks = 500;

/// JSON written as text: a million small numbers as a tree would take most of the time.
class Json {
 public:
  std::string text;

  void name(std::string_view key) {
    separate();
    string_value(key);
    text += ':';
  }
  void string_value(std::string_view value) {
    text += nlohmann::json(printable_line(replace_invalid_utf8(value))).dump();
  }
  void open(char bracket) {
    separate_if_value();
    text += bracket;
  }
  void close(char bracket) { text += bracket; }
  void array(std::string_view key, std::span<const double> values) {
    name(key);
    text += '[';
    for (size_t i = 0; i < values.size(); ++i) {
      if (i > 0) text += ',';
      number(values[i]);
    }
    text += ']';
  }

 private:
  void separate() {
    if (text.back() != '{' && text.back() != '[') text += ',';
  }
  void separate_if_value() {
    if (!text.empty() && text.back() != '{' && text.back() != '[' && text.back() != ':')
      text += ',';
  }
  void number(double value) {
    if (!std::isfinite(value)) {
      text += "null";
      return;
    }
    char digits[32];
    const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
    const auto end = whole
                         ? std::to_chars(digits, digits + 32, static_cast<int64_t>(value))
                         : std::to_chars(digits, digits + 32, value, std::chars_format::general, 7);
    text.append(digits, end.ptr);
  }
};

double first_time(const RunRecord& run) {
  if (const std::vector<double>* times = run.metrics.steps.find("time")) {
    for (const double time : *times) {
      if (std::isfinite(time)) return time;
    }
  }
  for (const auto& [set, rows] : run.metrics.evaluations) {
    const std::vector<double>* times = rows.find("time");
    if (times != nullptr && !times->empty()) return times->front();
  }
  return kNoNumber;
}

/// Tokens seen at each of `steps`, by the step lines: evaluations do not say it.
std::vector<double> tokens_at(const Columns& rows, const std::vector<int64_t>& steps) {
  const std::vector<double>* tokens = rows.find("tokens_seen");
  std::vector<double> out;
  for (const int64_t step : steps) {
    const auto behind = std::upper_bound(rows.steps().begin(), rows.steps().end(), step);
    const bool none = tokens == nullptr || (behind == rows.steps().begin() && step > 0);
    if (none) {
      out.push_back(kNoNumber);
    } else {
      out.push_back(behind == rows.steps().begin()
                        ? 0
                        : (*tokens)[static_cast<size_t>(behind - rows.steps().begin()) - 1]);
    }
  }
  return out;
}

/// {"x": {...}, "series": {...}} without its braces.
void add_rows(Json& json, const Columns& rows, std::vector<double> tokens, double begin) {
  const std::vector<size_t> parts = parts_of(rows.size(), kMostPoints);
  const bool condensed = rows.size() > kMostPoints;
  const std::vector<double> steps(rows.steps().begin(), rows.steps().end());
  std::vector<double> hours(rows.size(), kNoNumber);
  if (const std::vector<double>* times = rows.find("time")) {
    for (size_t i = 0; i < rows.size(); ++i) hours[i] = ((*times)[i] - begin) / 3600;
  }
  json.name("x");
  json.open('{');
  json.array("step", condense(steps, parts).high);
  json.array("time", condense(hours, parts).high);
  json.array("tokens", condense(tokens, parts).high);
  json.close('}');
  json.name("series");
  json.open('{');
  for (const Columns::Column& column : rows.all()) {
    const Condensed points = condense(column.values, parts);
    json.name(column.name);
    json.open('{');
    json.array("mean", points.mean);
    if (condensed) {
      json.array("low", points.low);
      json.array("high", points.high);
    }
    json.close('}');
  }
  json.close('}');
}

std::vector<double> last_of(std::vector<double> values) {
  if (values.size() > kMostMarks) values.erase(values.begin(), values.end() - kMostMarks);
  return values;
}

void add_run(Json& json, const RunRecord& run) {
  const Columns& rows = run.metrics.steps;
  const double begin = first_time(run);
  json.open('{');
  json.name("name");
  json.string_value(run.name);
  add_rows(json, rows, tokens_at(rows, rows.steps()), begin);
  json.name("evaluations");
  json.open('{');
  for (const auto& [set, evaluations] : run.metrics.evaluations) {
    json.name(set);
    json.open('{');
    add_rows(json, evaluations, tokens_at(rows, evaluations.steps()), begin);
    json.close('}');
  }
  json.close('}');
  std::vector<double> saves, restarts;
  for (const StoredCheckpoint& checkpoint : run.checkpoints)
    saves.push_back(static_cast<double>(checkpoint.step));
  for (size_t i = 1; i < run.log.starts.size(); ++i)
    restarts.push_back(static_cast<double>(run.log.starts[i].from_step));
  json.array("saves", last_of(saves));
  json.array("restarts", last_of(restarts));
  json.close('}');
}

}  // namespace

std::string page_data(const std::vector<RunRecord>& runs) {
  Json json;
  json.open('{');
  json.name("runs");
  json.open('[');
  for (const RunRecord& run : runs) add_run(json, run);
  json.close(']');
  json.close('}');
  return std::move(json.text);
}

}  // namespace tptrain::report
