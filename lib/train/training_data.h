// The text of a run as token files and samplers: rank 0 prepares, every rank reads.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "comm/mpi_session.h"
#include "data/batch_sampler.h"
#include "tokenizer/tokenizer.h"
#include "train/cadence.h"
#include "train/resolve.h"

namespace tptrain::train {

struct TrainingData {
  /// A part of data.eval that has a loss of its own. The name is "" where there is only one.
  struct EvalSet {
    std::string name;
    std::vector<data::SourceTokens> sources;
    data::BatchSampler text;
  };
  std::vector<data::SourceTokens> sources;  // of data.train
  std::optional<data::BatchSampler> train;  // always there
  std::vector<EvalSet> eval;                // empty where data.eval is not given

  Cadence cadence(int64_t every_steps, int64_t every_epochs) const {
    return {.every_steps = every_steps,
            .every_epochs = every_epochs,
            .global_batch = train->shape().global_batch_size(),
            .sequences = train->windows()};
  }
};

/// Tokenizes what run_dir/data does not hold yet, and says what there is; where train.epochs is
/// given, `resolved` gets the steps that they are. Throws what
/// data::prepare_tokens and data::BatchSampler throw, on every rank alike. Collective.
TrainingData prepare_data(comm::MpiSession& session, ResolvedConfig& resolved,
                          const tokenizer::Tokenizer& tokenizer, Logger& log);

}  // namespace tptrain::train
