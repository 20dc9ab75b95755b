// Chat templates against what Jinja makes of them: tests/golden/chat/templates.json, written by
// scripts/golden/chat_templates.py; or the file that TPTRAIN_CHAT_CASES names, for a longer run by
// hand.
#include <cstdlib>

#include "base/error.h"
#include "chat_template/chat_template.h"
#include "support/catch.h"
#include "support/tokenizer_test_data.h"

namespace tptrain::chat_template {
namespace {

using nlohmann::ordered_json;

TEST_CASE("every template gives Jinja's text, or is refused by name: never another text") {
  const char* other_file = std::getenv("TPTRAIN_CHAT_CASES");
  const auto golden = ordered_json::parse(testing::content_of(
      other_file ? other_file : TPTRAIN_SOURCE_DIR "/tests/golden/chat/templates.json"));
  std::vector<std::pair<std::string, std::string>> constants;
  for (const auto& [name, value] : golden["constants"].items()) {
    constants.emplace_back(name, value.get<std::string>());
  }
  int compared = 0;
  int same = 0;
  int with_text = 0;
  for (const auto& c : golden["cases"]) {
    const std::string source = golden["templates"][c["template"].get<size_t>()].get<std::string>();
    const std::string kind = c["kind"].get<std::string>();
    INFO(c["name"].get<std::string>() << "\n" << source);
    ChatOptions options;
    options.add_generation_prompt = c.value("add_generation_prompt", false);
    options.time_seconds = golden["time"].get<int64_t>();
    if (c.value("tools", false)) options.tools = golden["tools"];
    if (c.contains("variables")) options.variables = c["variables"];
    std::string text;
    std::string refusal;
    try {
      const auto made = ChatTemplate::from_source(source, "golden", constants);
      text = made.render_json(golden["conversations"][c["messages"].get<size_t>()], options);
    } catch (const DataError& e) {
      refusal = e.what();
    }
    ++compared;
    if (kind == "refuse") {
      CHECK(refusal.find("the chat template refuses this conversation: " +
                         c["text"].get<std::string>()) != std::string::npos);
      continue;
    }
    if (c["text"].is_null()) {
      CHECK(refusal != "");
      continue;
    }
    ++with_text;
    const bool equal = refusal.empty() && text == c["text"].get<std::string>();
    same += equal ? 1 : 0;
    if (kind == "must" || refusal.empty()) {
      INFO(refusal);
      REQUIRE(text == c["text"].get<std::string>());
      CHECK(equal);
    }
  }
  CHECK(compared >= 800);
  CHECK(same >= with_text / 2);  // refusing everything is no way through
  std::printf("%d templates: %d texts equal of %d, the others refused\n", compared, same,
              with_text);
}

}  // namespace
}  // namespace tptrain::chat_template
