// Saves of a small state by four forked ranks, disturbed at a call of their file I/O, and whether
// the store keeps what it promises (docs/checkpoints.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "comm/control.h"

namespace tptrain::testing {

/// "" where all was as it must be, else what was not.
using Judgement = std::string;

/// A folder of two checkpoints, of steps 1 and 2, that each trial begins with.
void make_template(const std::filesystem::path& directory);

/// at_once: CheckpointStore::save. beside: step by step, the files in the hands of other threads.
enum class Saving { at_once, beside };
/// One save, with retention. Throws what the store throws. Collective.
void save(checkpoint::CheckpointStore& store, comm::ControlGroup& group, Saving saving,
          const sharding::StateDict& state, const checkpoint::TrainState& train_state);

struct Fault {
  int rank = 0;
  int64_t call = 0;       // from 1; 0: none
  std::string kind = {};  // as io_faults.h has them
  bool stays = false;
};
std::string text_of(const Fault& fault);
/// Whether a kernel could answer a call of that name so.
bool fits(const Fault& fault, const std::string& call);

/// The calls of I/O that each rank makes in a trial without a fault, by name.
std::vector<std::vector<std::string>> calls_of_ranks(const std::filesystem::path& start,
                                                     const std::filesystem::path& work,
                                                     Saving saving);

/// Goes on from the template's copy in `work` with four saves that remove old ones, disturbed by
/// `fault`; then starts anew on a sound disk. `met`: whether the call was reached.
Judgement trial_of_fault(const std::filesystem::path& start, const std::filesystem::path& work,
                         const Fault& fault, Saving saving, bool& met);

/// Bytes or files of the newest of the template's checkpoints are damaged in `work`: it must be
/// refused, by name, and the one before taken.
Judgement trial_of_damage(const std::filesystem::path& start, const std::filesystem::path& work,
                          const std::string& kind, std::mt19937_64& random);
/// Nothing is damaged: nothing may be refused.
Judgement trial_of_clean_load(const std::filesystem::path& start);

}  // namespace tptrain::testing
