// What of a run file decides a training's numbers, kept in its checkpoints, and what a resume finds
// changed in it. The layout, the places that are written to and how often things are logged are no
// part of it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace tptrain::train {

/// Key of the run file -> value as YAML text.
using Settings = std::map<std::string, std::string>;

/// Of a run file with its derived values filled in.
Settings decisive_settings(const config::RunConfig& run);

struct Change {
  std::string key;
  std::string before;  // "default" where the checkpoint's program did not know the key
  std::string now;
};

/// What differs, key by key: of a key that only one of the two has, its default stands in for the
/// other. train.max_steps and train.epochs are left out: a run that is told to go further is the
/// same run.
std::vector<Change> changed_settings(const Settings& before, const Settings& now);

/// "optimizer.learning_rate: 0.003 -> 0.01; train.seed: 42 -> 7"
std::string text_of(const std::vector<Change>& changes);

/// What another train.max_steps does to a learning rate that falls until there: a sentence that has
/// the rate of the update of `step` (0 is the first) now and as it would have been. Empty where
/// they are the same, or the checkpoint does not tell its max_steps.
std::string moved_schedule(const Settings& before, const config::RunConfig& run, int64_t step);

/// Keys whose change gives the position in the data another meaning (beside the data itself, the
/// tokenizer and the global batch).
bool decides_the_sequences(const std::string& key);

}  // namespace tptrain::train
