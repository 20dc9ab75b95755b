// YAML text -> RunConfig, strictly: unknown keys (with the nearest known one), wrong types, values
// out of bounds, both of two alternatives; all errors of the file at once, each with
// file:line:column.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"

namespace tptrain::config {

struct Parsed {
  RunConfig config;
  /// "parallel.tp_size" -> "run.yaml:7:12", for keys that the file or --set gave, and for what
  /// stands within their lists ("optimizer.groups[0].match"); lets later checks name the place.
  std::map<std::string, std::string> places;
};

/// `name` is the file name for messages; `overrides` are "section.key=value" texts of --set,
/// applied after the file ("--set" is their place). Throws ConfigError with every problem found.
Parsed parse_run_config(const std::string& yaml_text, const std::string& name,
                        const std::vector<std::string>& overrides);

/// Checks within single sections that need nothing else (positive sizes, alternatives).
/// parse_run_config has already applied them.
std::vector<Problem> check_sections(const RunConfig& config,
                                    const std::map<std::string, std::string>& places);

/// Every key with its resolved value as YAML, parseable again by parse_run_config:
/// run_dir/resolved_config.yaml.
std::string to_yaml(const RunConfig& config);

/// JSON Schema (draft 2020-12) of the run file, for editors; pretty-printed.
std::string json_schema();
/// docs/configuration.md.
std::string markdown_reference();

}  // namespace tptrain::config
