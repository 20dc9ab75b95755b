// Paths with wildcards -> the regular files they name. Not glob(3): that knows no `**`, and sorts
// by the locale.
//
//   *       any characters within one component       [abc] [a-z] [!abc]   one character (a byte)
//   of, or not of, the set ?       one character (a byte) of a component     **    any number of
//   components, as a component of its own
//
// Hidden names (leading dot) match only a pattern with a leading dot, and `**` and directories skip
// them. `**` does not follow links to directories (they may form a circle); other components do. A
// path that exists as it is spelled is taken as it is, whatever characters it holds.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::data {

struct GlobResult {
  std::vector<std::filesystem::path> files;  // in no order; may repeat
  bool directory = false;                    // the path named one: they are what lies below it
  // Why there are none:
  int matched_directories = 0;   // matched by a glob, which names files only
  bool empty_directory = false;  // a directory was named, and holds no file
  bool special_file = false;     // a device, socket or pipe was named
};

/// A plain path gives itself, or all regular files below it where it is a directory. Throws
/// DataError where a directory cannot be read.
GlobResult expand_glob(const std::string& pattern);

/// Whether one component (no '/') matches.
bool matches_component(std::string_view pattern, std::string_view name);

}  // namespace tptrain::data
