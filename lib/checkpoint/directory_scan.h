// What lies under run_dir/checkpoints: which entries are checkpoints, which are leftovers of ours,
// and which are somebody else's and never touched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "checkpoint/checkpoint_store.h"

namespace tptrain::checkpoint {

/// Everything in it, by name, rising. Empty where it does not exist; throws CheckpointError where
/// it cannot be read.
std::vector<std::filesystem::path> entries_if_there(const std::filesystem::path& directory);

/// Whether anything is called manifest.json there, even a broken link or a file that cannot be
/// looked at: only certain absence lets a directory be cleaned away.
bool has_manifest(const std::filesystem::path& directory);

/// Directories that hold a manifest.json, whatever they are called, and step-* directories with
/// shards but without one. By name, rising. Not the .tmp-* of an unfinished save. Empty where
/// `checkpoints_dir` does not exist; throws CheckpointError where it cannot be read.
std::vector<std::filesystem::path> candidate_directories(
    const std::filesystem::path& checkpoints_dir);

/// Real directories (no links) named as the saves in progress are.
std::vector<std::filesystem::path> temporary_directories(
    const std::filesystem::path& checkpoints_dir);

/// Candidates that retention may remove: real directories named step-* with a manifest. What a user
/// renamed or linked is not among them.
std::vector<std::filesystem::path> removable_directories(
    const std::filesystem::path& checkpoints_dir);

/// Real directories named step-* without a manifest that hold shards or nothing: deletions that
/// were cut short.
std::vector<std::filesystem::path> unfinished_deletions(
    const std::filesystem::path& checkpoints_dir);

/// The first name step-N, step-N.2, ... that is not taken.
std::filesystem::path free_step_directory(const std::filesystem::path& checkpoints_dir,
                                          int64_t step);

/// Newest save_sequence first; those with a problem last, by name.
void sort_newest_first(std::vector<Verdict>& verdicts);

}  // namespace tptrain::checkpoint
