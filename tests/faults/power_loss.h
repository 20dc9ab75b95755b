// Saves of four ranks, recorded call by call, and the store on every state in which a power failure
// may have left the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "checkpoint_trials.h"
#include "recorded_io.h"

namespace tptrain::testing {

/// Records eight saves with removals, from nothing on, in `work`. Each acknowledged one is a note.
std::vector<RecordedCall> record_saves(const std::filesystem::path& work, Saving saving);

/// "" where nothing older than the last acknowledged save was found at a random moment's crash, and
/// nothing wrong.
std::string trial_of_power_loss(const std::vector<RecordedCall>& calls,
                                const std::filesystem::path& work, std::mt19937_64& random);

/// The record of a program that does not sync files or folders whose path holds `part`.
std::vector<RecordedCall> without_sync(std::vector<RecordedCall> calls, const std::string& part);

}  // namespace tptrain::testing
