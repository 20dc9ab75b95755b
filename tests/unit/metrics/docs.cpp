// docs/metrics.md names the keys that are written: all of them, in their order, and no other.
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "metrics/jsonl_writer.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::metrics {
namespace {

/// The keys of the table under a heading of the page.
std::vector<std::string> documented(const std::string& heading) {
  std::ifstream page(TPTRAIN_SOURCE_DIR "/docs/metrics.md");
  REQUIRE(page);
  const std::regex row("^\\| `([a-z0-9_]+)` \\|.*");
  std::vector<std::string> keys;
  bool here = false;
  std::smatch found;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("## ")) here = line == "## " + heading;
    if (here && std::regex_match(line, found, row)) keys.push_back(found[1]);
  }
  return keys;
}

std::vector<std::string> keys_of(const std::string& line) {
  std::vector<std::string> keys;
  const auto object = nlohmann::ordered_json::parse(line);
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

}  // namespace

TEST_CASE("docs/metrics.md lists the keys of each kind of line", "[metrics]") {
  const testing::TempDir directory;
  JsonlWriter writer(directory / "metrics.jsonl", 0);
  writer.step({.step = 1,
               .sources = {{.name = "wiki"}},
               .phases = {0.5},
               .mfu = 0.5,
               .fp8_flushed = 0.001,
               .fp8_saturated = 0});
  writer.skipped({.step = 2, .reason = "nonfinite"});
  writer.eval({.step = 2, .sets = {{.name = "wiki"}}});
  std::ifstream file(directory / "metrics.jsonl");
  for (const char* heading : {"A step", "A step without an update", "An evaluation"}) {
    std::string line;
    REQUIRE(std::getline(file, line));
    CHECK(keys_of(line) == documented(heading));
  }
}

}  // namespace tptrain::metrics
