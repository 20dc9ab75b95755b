// What stands under a name and in a directory. Whether a link counts, and what cannot be looked at,
// is decided here once.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/files.h"

namespace tptrain {

/// Whether the name is taken: by a file, a directory, a link that leads nowhere, or something that
/// cannot be looked at. Only certain absence is false.
bool is_taken(const std::filesystem::path& path);
/// Whether it leads to a regular file; what cannot be looked at does not.
bool is_file(const std::filesystem::path& path);
/// Likewise, and whether that holds something.
bool is_filled_file(const std::filesystem::path& path);
/// Whether it is a directory itself, not a link to one.
bool is_real_directory(const std::filesystem::path& path);

/// Everything in it, by name, rising, so that every rank and every run sees one order. An error
/// where it is missing or cannot be read, with `remedy` if there is one.
std::vector<std::filesystem::path> entries_of(const std::filesystem::path& directory,
                                              FailAs fail_as, const std::string& remedy = "");
/// Likewise, and none where it is missing or cannot be read.
std::vector<std::filesystem::path> entries_if_readable(const std::filesystem::path& directory);

}  // namespace tptrain
