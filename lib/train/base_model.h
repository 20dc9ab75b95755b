// The weights that a run begins with, or an adapter stands beside: a Hugging Face directory's, or
// drawn ones, and what tells them from others.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "adapters/adapter_run.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/huggingface_source.h"
#include "comm/mpi_session.h"
#include "train/resolve.h"

namespace tptrain::train {

struct BaseModel {
  std::optional<checkpoint::HuggingFaceSource> weights;  // none: drawn from train.seed
  std::string facts;  // lines that another base would not have: of the files, or of the drawing
};

/// Runs what a rank does by itself; a failure or a stop of one ends all.
using UntilStopped = std::function<void(const std::function<void()>& work)>;

/// Opens model.path, where model.init asks for it; hosts whose files differ are refused.
/// Collective.
BaseModel open_base(comm::MpiSession& session, const ResolvedConfig& resolved,
                    const UntilStopped& until_stopped);

/// Names of what TrainState::extra holds of a run with adapters.
using adapters::kAdapterExtra;
using adapters::kBaseFactsExtra;  // BaseModel::facts

/// Throws CheckpointError where the base beside which `from` was trained is another than this
/// run's, naming the files and what of them differs.
void check_same_base(const checkpoint::CheckpointInfo& from, const BaseModel& base,
                     const std::string& path);

}  // namespace tptrain::train
