// Where a start begins, by the runs whose checkpoints lie in run_dir: what `checkpoint.resume` says
// is about the first start of a run alone. Looks at no checkpoint's contents.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/run_identity.h"

namespace tptrain::checkpoint {

/// What rank 0 finds in run_dir before it decides.
struct Holdings {
  std::filesystem::path run_dir;
  const std::vector<Verdict>& checkpoints;  // newest first, those with a problem last
  std::optional<RunIdentity> current = {};  // of .run.json
  bool has_metrics = false;                 // metrics.jsonl holds something
};

/// Where a start begins.
struct Start {
  enum class From {
    nothing,  // random values or the model's weights
    path,     // the checkpoint that checkpoint.resume names
    run_dir   // the newest valid one of `candidates`
  };
  From from = From::nothing;
  RunIdentity run = {};  // of from nothing and from path: the run that begins (or begins again,
                         // where it had ended before its first checkpoint)
  std::vector<Verdict> candidates = {};  // of run_dir, newest first
};

/// The rules (docs/checkpoints.md, "Which checkpoint a start takes"). Throws ConfigError where
/// `never` meets what another run left in run_dir. On one rank.
Start choose_start(const config::CheckpointConfig& config, const Holdings& holdings);

}  // namespace tptrain::checkpoint
