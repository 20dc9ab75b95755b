// The chat templates of Qwen2.5 and Llama-3 against texts and ids of the Hugging Face library.
// Needs TPTRAIN_TEST_DATA.
#include "chat_template/chat_template.h"
#include "support/catch.h"
#include "support/tokenizer_test_data.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::chat_template {
namespace {

TEST_CASE("conversations become the text and the ids that the library gives") {
  for (const std::string model : {"qwen2", "llama3"}) {
    const std::string folder = testing::tokenizer_data(model).string();
    const auto tokenizer = tokenizer::make_tokenizer(folder);
    const auto chat = ChatTemplate::from_tokenizer(folder);
    const auto cases =
        nlohmann::ordered_json::parse(testing::content_of(folder + "/chat.json"))["cases"];
    REQUIRE(cases.size() == 4);
    for (const auto& c : cases) {
      INFO(model << " " << c["name"]);
      const ChatOptions options = {.add_generation_prompt = c["add_generation_prompt"].get<bool>()};
      std::vector<ChatMessage> messages;
      for (const auto& message : c["messages"]) {
        messages.push_back(
            {message["role"].get<std::string>(), message["content"].get<std::string>()});
      }
      const std::string text = chat.render(messages, options);
      CHECK(text == c["text"].get<std::string>());
      CHECK(chat.render_json(c["messages"], options) == text);
      CHECK(tokenizer->encode(text) == c["ids"].get<std::vector<int32_t>>());
    }
  }
}

}  // namespace
}  // namespace tptrain::chat_template
