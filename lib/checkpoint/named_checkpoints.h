// The names `best` and `last` of a run's checkpoints: RUN_DIR/last is the newest valid one,
// RUN_DIR/best the one of the lowest eval_loss, as checkpoints/best.json says. No directory is
// called so.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"

namespace tptrain::checkpoint {

/// The evaluations of one run that were the best of their time. More than the last, since a save of
/// it may still fail: the best checkpoint is that of the last one that is there.
struct BestEvaluations {
  struct Evaluation {
    int64_t step = 0;
    double loss = 0;
  };
  std::string run;
  std::vector<Evaluation> evaluations;  // each better than the one before
};

/// Nothing where there is no best.json. Throws CheckpointError where it cannot be read or is
/// something else.
std::optional<BestEvaluations> read_best(const std::filesystem::path& checkpoints_dir);
/// `now` is better than all before of this run; durable, whole or not at all. On one rank.
void add_best(const std::filesystem::path& checkpoints_dir, const std::string& run,
              const BestEvaluations::Evaluation& now);

struct Best {
  std::filesystem::path path;
  BestEvaluations::Evaluation evaluation;
};
/// Among those of `newest_first` whose manifest is valid.
std::optional<Best> find_best(const std::vector<Verdict>& newest_first,
                              const BestEvaluations& evaluations);

/// Where PATH ends with a name and nothing of that name exists.
struct NamedPath {
  std::string name;          // best or last
  std::filesystem::path of;  // a run directory or a directory of checkpoints
};
std::optional<NamedPath> as_named_path(const std::filesystem::path& path);

}  // namespace tptrain::checkpoint
