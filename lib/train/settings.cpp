#include "train/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "base/text.h"
#include "config/key_values.h"
#include "optim/schedule.h"

namespace tptrain::train {
namespace {

// Sections and keys that are not of the training: a run goes on under another value as if nothing
// had changed. The model is compared as a whole, the data by its identity.
constexpr std::array<std::string_view, 4> kOtherSections = {"checkpoint.", "eval.", "logging.",
                                                            "model.architecture."};
constexpr std::array<std::string_view, 17> kOtherKeys = {
    "run_dir", "data.train", "data.eval", "data.eval_share", "data.format", "data.cache_dir",
    "data.trust_times", "data.special_as_text",
    // How the work is done and when it is given up, not what is computed.
    "train.device", "train.cpu_threads", "train.deterministic", "train.cuda_graphs",
    "train.hang_timeout_s", "train.nonfinite", "train.max_time",
    // The global batch says it.
    "train.micro_batch_size", "train.grad_accum_steps"};

bool is_decisive(const std::string& key) {
  if (std::find(kOtherKeys.begin(), kOtherKeys.end(), key) != kOtherKeys.end()) return false;
  // Layouts give the same numbers; gradients that are rounded on their way do not.
  if (key.starts_with("parallel.")) return key == "parallel.reduce_dtype";
  return std::none_of(kOtherSections.begin(), kOtherSections.end(),
                      [&](std::string_view section) { return key.starts_with(section); });
}

std::string shown_rate(double rate) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3g", rate);
  return text.data();
}

}  // namespace

Settings decisive_settings(const config::RunConfig& run) {
  Settings settings = config::key_values(run);
  std::erase_if(settings, [](const auto& entry) { return !is_decisive(entry.first); });
  return settings;
}

std::vector<Change> changed_settings(const Settings& before, const Settings& now) {
  const Settings defaults = config::default_values();
  const auto value_in = [&](const Settings& settings, const std::string& key) -> std::string {
    if (const auto found = settings.find(key); found != settings.end()) return found->second;
    const auto standard = defaults.find(key);
    return standard == defaults.end() ? "none" : standard->second;
  };
  Settings keys = before;
  keys.insert(now.begin(), now.end());
  std::vector<Change> changes;
  for (const auto& [key, ignored] : keys) {
    if (key == "train.max_steps" || key == "train.epochs") continue;
    const Change change{.key = key, .before = value_in(before, key), .now = value_in(now, key)};
    if (change.before != change.now) changes.push_back(change);
  }
  return changes;
}

std::string text_of(const std::vector<Change>& changes) {
  std::vector<std::string> texts;
  for (const Change& change : changes)
    texts.push_back(cat(change.key, ": ", change.before, " -> ", change.now));
  return join(texts, "; ");
}

std::string moved_schedule(const Settings& before, const config::RunConfig& run, int64_t step) {
  const auto found = before.find("train.max_steps");
  if (found == before.end()) return "";
  const std::string& said = found->second;
  int64_t max_steps = 0;
  if (std::from_chars(said.data(), said.data() + said.size(), max_steps).ec != std::errc())
    return "";
  const auto rate = [&](int64_t end) {
    return optim::LearningRateSchedule(run.scheduler, run.optimizer.learning_rate, end)
        .learning_rate(step);
  };
  if (rate(max_steps) == rate(run.train.max_steps)) return "";
  return cat("train.max_steps: ", max_steps, " -> ", run.train.max_steps,
             " moves the end of scheduler.type ", word(run.scheduler.type),
             ": the learning rate goes on with ", shown_rate(rate(run.train.max_steps)),
             " instead of ", shown_rate(rate(max_steps)));
}

bool decides_the_sequences(const std::string& key) {
  return key == "train.seq_length" || key == "train.seed" || key == "data.shuffle" ||
         key == "data.packing";
}

}  // namespace tptrain::train
