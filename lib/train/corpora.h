// What data.train and data.eval of a run file name, as what is tokenized.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "data/token_store.h"

namespace tptrain::train {

/// A source of a mixture, or of an evaluation set.
struct NamedCorpus {
  std::string name = {};
  std::optional<double> weight = {};
  int64_t repeat = 1;
  std::string set = {};  // of data.eval; "": it has no sets
  data::Corpus corpus = {};
};

/// Where token files go: data.cache_dir, or run_dir/data.
std::filesystem::path data_directory(const config::RunConfig& run);

/// One corpus where all entries (of a set) are plain paths, else one for each. `vocab_size`: rows
/// of the model. The chat template is read when it is asked for.
std::vector<NamedCorpus> train_corpora(const config::RunConfig& run, int64_t vocab_size);
/// What data.eval names, or what data.eval_share holds out of data.train.
std::vector<NamedCorpus> eval_corpora(const config::RunConfig& run, int64_t vocab_size);

/// Sentences: files that two sources of the training read alike, and so count twice; and files that
/// are both trained on and evaluated on, where none are held out. Empty where what is named cannot
/// be looked up.
std::vector<std::string> shared_files(const std::vector<NamedCorpus>& train,
                                      const std::vector<NamedCorpus>& eval);

/// What the token files of these are called, and messages name: "eval" or "eval_share".
std::string eval_split(const config::RunConfig& run);

}  // namespace tptrain::train
