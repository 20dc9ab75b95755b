#include "report/log_file.h"

#include <algorithm>
#include <charconv>

#include "report/shown_line.h"

namespace tptrain::report {
namespace {

constexpr size_t kMostWarnings = 50;
constexpr size_t kMostStarts = 1000;
constexpr size_t kWhen = 14;  // "11-29 19:15:37"

std::string shown(std::string_view text) {
  constexpr size_t kLongest = 2000;
  return shown_line(text.substr(0, kLongest));
}

/// What stands behind `before`, where `text` begins with it.
std::optional<std::string_view> behind(std::string_view text, std::string_view before) {
  if (!text.starts_with(before)) return std::nullopt;
  return text.substr(before.size());
}

/// The first whole number of `text`.
std::optional<int64_t> number_in(std::string_view text) {
  text.remove_prefix(std::min(text.size(), text.find_first_of("0123456789")));
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  return number;
}

// "runs/a/checkpoints/step-00000100 committed in 0.03 s", with or without more behind it
std::optional<Save> save_of(std::string_view text, std::string_view when) {
  constexpr std::string_view kIn = " committed in ";
  constexpr std::string_view kStep = "/step-";
  const size_t in = text.rfind(kIn);
  const size_t name = text.substr(0, in).rfind(kStep);
  if (in == std::string_view::npos || name == std::string_view::npos) return std::nullopt;
  const std::optional<int64_t> step = number_in(text.substr(name + kStep.size()));
  const std::string_view seconds = text.substr(in + kIn.size());
  Save save{.step = step.value_or(0), .seconds = 0, .when = shown(when)};
  const auto [end, error] =
      std::from_chars(seconds.data(), seconds.data() + seconds.size(), save.seconds);
  if (error != std::errc() || !step) return std::nullopt;
  return save;
}

/// "evaluating: 3 of 12 (25 %), 0.15/s, ETA 1m 2s" is "evaluating (25 %)", "building the model: 12s
/// so far" is "building the model"; "" of another line.
std::string work_of(std::string_view text) {
  const size_t colon = text.find(": ");
  if (colon == std::string_view::npos) return "";
  const std::string_view what = text.substr(0, colon), rest = text.substr(colon + 2);
  if (rest.ends_with(" so far")) return shown(what);
  const size_t open = rest.find(" ("), close = rest.find(" %)");
  const size_t of = rest.find(" of ");
  if (of == std::string_view::npos || open == std::string_view::npos || open < of) return "";
  if (close == std::string_view::npos || !number_in(rest)) return "";
  return shown(what) + shown(rest.substr(open, close + 3 - open));
}

class Reader {
 public:
  LogFacts facts;

  void take(std::string_view when, std::string_view text) {
    facts.work = work_of(text);
    if (text.starts_with("step ")) return;  // nearly all are
    if (text.starts_with("tptrain ")) program_ = shown(text);
    if (const auto begun = behind(text, "started ")) return begin(*begun);
    if (text.starts_with("WARNING: ") || text.starts_with("[rank ")) return warn(when, text);
    if (const auto saved = behind(text, "checkpoint: ")) {
      if (const auto save = save_of(*saved, when)) facts.saves.push_back(*save);
      return;
    }
    describe(text);
  }

 private:
  // "2026-11-29 19:15:37 UTC by: tptrain --config run.yaml"
  void begin(std::string_view text) {
    constexpr std::string_view kBy = " by: ";
    const size_t by = text.find(kBy);
    if (by == std::string_view::npos || facts.starts.size() == kMostStarts) return;
    Start start;
    start.program = program_;
    start.when = shown(text.substr(0, by));
    start.command = shown(text.substr(by + kBy.size()));
    facts.starts.push_back(std::move(start));
  }

  void warn(std::string_view when, std::string_view text) {
    ++facts.warnings;
    if (facts.last_warnings.size() == kMostWarnings)
      facts.last_warnings.erase(facts.last_warnings.begin());
    facts.last_warnings.push_back(shown(when) + "  " + shown(text));
  }

  void describe(std::string_view text) {
    const bool done = text.starts_with("done: ") || text.starts_with("nothing to train: ");
    const bool end = done || text.starts_with("stopped ") || text.starts_with("ERROR: ");
    if (facts.starts.empty() && !end) return;
    if (facts.starts.empty()) facts.starts.emplace_back();  // whose first lines were cut off
    Start& start = facts.starts.back();
    if (const auto hosts = behind(text, "hosts: ")) start.hosts = shown(*hosts);
    if (const auto mesh = behind(text, "device mesh: ")) start.devices = shown(*mesh);
    if (const auto gpus = behind(text, "GPUs: ")) start.devices = shown(*gpus);
    if (const auto model = behind(text, "model: ")) start.model = shown(*model);
    if (const auto data = behind(text, "data: "); data && start.data.empty())
      start.data = shown(*data);
    if (const auto resumed = behind(text, "resume: ")) {
      const size_t step = resumed->rfind(", step ");
      if (step != std::string_view::npos)
        start.from_step = number_in(resumed->substr(step)).value_or(0);
    }
    if (!end) return;
    start.end = shown(text);
    start.done = done;
  }

  std::string program_;
};

}  // namespace

LogFacts read_log(std::string_view text) {
  Reader reader;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.size() <= kWhen || line[0] == ' ' || line[kWhen] != ' ') continue;
    reader.take(line.substr(0, kWhen), line.substr(kWhen + 1));
  }
  return std::move(reader.facts);
}

}  // namespace tptrain::report
