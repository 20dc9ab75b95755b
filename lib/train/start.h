// Where a training begins: the newest checkpoint that is its own, the weights of a Hugging Face
// directory, or random values.
#pragma once

#include <optional>

#include "base/log.h"
#include "checkpoint/checkpoint_store.h"
#include "comm/mpi_session.h"
#include "data/token_store.h"
#include "tokenizer/tokenizer.h"
#include "train/cadence.h"
#include "train/engine.h"
#include "train/outlier_guard.h"
#include "train/resolve.h"

namespace tptrain::train {

struct StartParts {
  comm::MpiSession& session;
  const ResolvedConfig& resolved;
  Engine& engine;
  checkpoint::CheckpointStore& store;
  Logger& log;
};

struct Started {
  checkpoint::TrainState state;
  std::string from_run =
      {};  // id of the run whose checkpoint it begins at; "": at none, or unnamed
  std::optional<checkpoint::CheckpointInfo> from = {};  // that checkpoint
};

/// `data_identity`: data::identity_of data.train. Fills the engine's parameters and optimizer
/// state, and says from where. Nothing where the checkpoint is already at train.max_steps. Throws
/// CheckpointError where checkpoints are there but none is valid, or the one to resume is not this
/// training's; ConfigError where checkpoint.resume is never and run_dir holds another run;
/// DataError where the weights of model.path cannot be read. Collective.
std::optional<Started> start_or_resume(const StartParts& parts,
                                       const tokenizer::Tokenizer& tokenizer,
                                       const std::string& data_identity);

/// Whether the evaluation that is due at this step stands in no metrics.jsonl yet: before the first
/// step, or where the run was stopped between the step's save and its evaluation. Collective.
bool owes_evaluation(comm::MpiSession& session, const config::RunConfig& run, int64_t step,
                     const Cadence& evaluations);

/// The values and the position of a checkpoint. Collective.
void load_state(const StartParts& parts, const checkpoint::CheckpointInfo& from,
                checkpoint::TrainState& state);

/// What a checkpoint keeps of train.guard; "": nothing.
std::string kept_guard(const checkpoint::TrainState& state);

/// Goes back to the checkpoint `to`, of this run, for the outlier of a later step: the state is its
/// own again, the batches up to that step are left out, and the guard knows of it. Throws
/// NumericsError where there is none: the save that was to be it has failed. Collective.
void roll_back(const StartParts& parts, const std::optional<checkpoint::CheckpointInfo>& to,
               int64_t outlier, OutlierGuard& guard, checkpoint::TrainState& state);

}  // namespace tptrain::train
