// A path as a run file gives it -> the path that is meant: a leading ~ is the home directory.
// Private to this folder.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace tptrain::config {

/// The path of `name` ("run_dir", "data.train[0]"), which stands at `place`. Nothing, and a problem
/// more, for $, the home of another user, or where this user has no home.
std::optional<std::string> path_from_text(const std::string& name, const std::string& text,
                                          const std::string& place, std::vector<Problem>& problems);

}  // namespace tptrain::config
