// The checks of a config's values, section by section: what must be given, bounds, allowed words,
// alternatives. Read off the one list of keys. Private to this folder; the public form is
// check_sections in parse.h.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"

namespace tptrain::config {

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
Checked check_all(const RunConfig& config, const std::map<std::string, std::string>& places,
                  const std::set<std::string>& refused, const std::string& name);

}  // namespace tptrain::config
