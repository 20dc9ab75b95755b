// The checks of a config's values: what must be given, bounds, allowed words, alternatives, and
// what one key asks of another (cross_checks.cpp). The first four are read off the one list of
// keys. Private to this folder; the public form is check_sections in parse.h.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"

namespace tptrain::config {

/// Of a key, or of something within its list: where it was given.
using Places = std::map<std::string, std::string>;
std::string place_of(const std::string& path, const Places& places, const std::string& otherwise);

struct Missing {
  std::string name;  // "train.max_steps", "model (path | architecture)"
  Problem problem;
};

struct Checked {
  std::vector<Missing> missing;
  std::vector<Problem> others;
};

/// `refused`: keys and sections that were written but have no usable value; they are not called
/// missing and their values are not looked at. `name`: the place of what is missing, where its
/// section has none.
Checked check_all(const RunConfig& config, const Places& places,
                  const std::set<std::string>& refused, const std::string& name);

/// What one key asks of another. Keys in `refused` are not looked at.
std::vector<Problem> cross_checks(const RunConfig& config, const Places& places,
                                  const std::set<std::string>& refused);

}  // namespace tptrain::config
