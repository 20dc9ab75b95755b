// A chat template of any bytes, rendered on a small conversation: ends with a text or with a
// DataError, within bounds of work, depth and memory.
#include "chat_template/chat_template.h"

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::chat_template;
  static const auto messages = nlohmann::ordered_json::parse(R"([
      {"role": "system", "content": " s "}, {"role": "user", "content": "a b\nü"},
      {"role": "assistant", "content": null, "n": 3, "f": 1.5, "tool_calls": [
         {"function": {"name": "f", "arguments": {"x": [1, {"y": true}]}}}]}])");
  static const ChatOptions options = {.add_generation_prompt = true,
                                      .tools = nlohmann::ordered_json::parse(R"([{"name": "f"}])"),
                                      .time_seconds = 1753531200};
  try {
    const auto chat =
        ChatTemplate::from_source(std::string_view(reinterpret_cast<const char*>(data), size),
                                  "fuzz", {{"eos_token", "</s>"}});
    chat.render_json(messages, options);
  } catch (const tptrain::DataError&) {
    // said in words
  }
  return 0;
}
