// The text of a run as token files and samplers: rank 0 prepares, every rank reads.
#pragma once

#include <optional>

#include "base/log.h"
#include "comm/mpi_session.h"
#include "data/batch_sampler.h"
#include "tokenizer/tokenizer.h"
#include "train/resolve.h"

namespace tptrain::train {

struct TrainingData {
  data::PreparedTokens train_tokens;
  std::optional<data::BatchSampler> train;  // always there
  data::PreparedTokens eval_tokens;
  std::optional<data::BatchSampler> eval;  // where data.eval is given
};

/// Tokenizes what run_dir/data does not hold yet, and says what there is. Throws what
/// data::prepare_tokens and data::BatchSampler throw, on every rank alike. Collective.
TrainingData prepare_data(comm::MpiSession& session, const ResolvedConfig& resolved,
                          const tokenizer::Tokenizer& tokenizer, Logger& log);

}  // namespace tptrain::train
