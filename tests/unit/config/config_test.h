// What the config tests share: the smallest valid run file, and the message that a text is refused
// with.
#pragma once

#include <string>
#include <vector>

#include "config/parse.h"
#include "support/catch.h"

namespace tptrain::testing {

inline const std::string kMinimal =
    "run_dir: runs/a\n"
    "model: {path: models/tiny}\n"
    "data: {train: [corpus.txt]}\n"
    "train: {max_steps: 10}\n";

inline config::RunConfig parse(const std::string& text,
                               const std::vector<std::string>& overrides = {}) {
  return config::parse_run_config(text, "run.yaml", overrides).config;
}

/// what() of the ConfigError; fails the test where there is none.
inline std::string refusal(const std::string& text,
                           const std::vector<std::string>& overrides = {}) {
  try {
    config::parse_run_config(text, "run.yaml", overrides);
  } catch (const ConfigError& e) {
    CHECK(e.code() == ExitCode::config);
    return e.what();
  }
  FAIL("accepted: " + text);
  return "";
}

inline void check_contains(const std::string& text, const std::string& part) {
  INFO(text);
  INFO("lacks: " << part);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace tptrain::testing
