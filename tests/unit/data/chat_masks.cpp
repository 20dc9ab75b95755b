// What is learned of a conversation, against Jinja's rendering of it: tests/golden/chat/masks.json,
// written by scripts/golden/chat_masks.py. Every field is a word of its own there.
#include <fstream>
#include <nlohmann/json.hpp>

#include "chat_template/chat_template.h"
#include "data/chat_rows.h"
#include "formats/token_file.h"
#include "support/catch.h"

namespace tptrain::data {
namespace {

using nlohmann::ordered_json;

/// Bytes, and the tokens that close a turn in the templates.
class MarkTokenizer final : public tokenizer::Tokenizer {
 public:
  int64_t vocab_size() const override { return 300; }
  int32_t end_of_text() const override { return find("</s>"); }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      int32_t id = static_cast<unsigned char>(text[at]);
      size_t length = 1;
      for (size_t i = 0; i < kSpecial.size(); ++i) {
        if (!text.substr(at).starts_with(kSpecial[i])) continue;
        id = 256 + static_cast<int32_t>(i);
        length = kSpecial[i].size();
      }
      ids.push_back(id);
      at += length;
    }
    return ids;
  }
  std::string decode(const std::vector<int32_t>& ids,
                     const tokenizer::DecodeOptions& options) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id < 256 || !options.skip_special) text += token(id);
    }
    return text;
  }
  std::string token(int32_t id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id))
                    : kSpecial.at(static_cast<size_t>(id - 256));
  }
  int32_t find(std::string_view token) const override {
    for (size_t i = 0; i < kSpecial.size(); ++i) {
      if (kSpecial[i] == token) return 256 + static_cast<int32_t>(i);
    }
    return -1;
  }
  std::string hash() const override { return "marks"; }

 private:
  const std::vector<std::string> kSpecial = {"<s>", "</s>", "<|start|>", "<|end|>", "<|eot|>"};
};

ordered_json golden() {
  std::ifstream file(TPTRAIN_SOURCE_DIR "/tests/golden/chat/masks.json");
  REQUIRE(file);
  return ordered_json::parse(file);
}

/// The rendered text, and for each of its bytes whether it is learned.
struct Learned {
  std::string text;
  std::vector<bool> bytes;
  bool all(size_t begin, size_t length) const {
    for (size_t i = begin; i < begin + length; ++i) {
      if (!bytes[i]) return false;
    }
    return true;
  }
  bool none(size_t begin, size_t length) const {
    for (size_t i = begin; i < begin + length; ++i) {
      if (bytes[i]) return false;
    }
    return true;
  }
};

Learned learned(const LabelledIds& row, const MarkTokenizer& tokenizer) {
  Learned out;
  for (size_t i = 0; i < row.ids.size(); ++i) {
    const std::string token = tokenizer.token(row.ids[i]);
    out.text += token;
    out.bytes.resize(out.text.size(), row.labels[i] != formats::kNoLabel);
  }
  return out;
}

TEST_CASE("the assistant's fields are learned as Jinja writes them, and the end of its turns") {
  const ordered_json all = golden();
  std::vector<std::pair<std::string, std::string>> constants;
  for (const auto& [name, value] : all["constants"].items())
    constants.emplace_back(name, value.get<std::string>());
  const MarkTokenizer tokenizer;
  int words = 0;
  for (const auto& c : all["cases"]) {
    const auto source = all["templates"][c["template"].get<std::string>()].get<std::string>();
    const auto chat_template =
        chat_template::ChatTemplate::from_source(source, "golden", constants);
    const Conversation conversation = {.messages = c["messages"], .tools = c["tools"]};
    for (const bool with_end : {true, false}) {
      INFO(c["name"].get<std::string>() << (c["tools"].is_null() ? "" : " with tools"));
      const Learned got = learned(
          encode_conversation(conversation, chat_template, tokenizer, {.train_on_end = with_end}),
          tokenizer);
      REQUIRE(got.text == c["text"].get<std::string>());
      const auto end = c["end"].get<std::string>();
      for (const auto& word : c["learned"]) {
        const auto text = word.get<std::string>();
        const size_t at = got.text.find(text);
        INFO(text);
        CHECK(got.all(at, text.size()));
        const size_t close = got.text.find(end, at);
        REQUIRE(close != std::string::npos);
        CHECK(got.bytes[close] == with_end);
        ++words;
      }
      for (const auto& word : c["never"]) {
        const auto text = word.get<std::string>();
        INFO(text);
        for (size_t at = got.text.find(text); at != std::string::npos;
             at = got.text.find(text, at + 1))
          CHECK(got.none(at, text.size()));
      }
    }
  }
  CHECK(words > 200);
}

}  // namespace
}  // namespace tptrain::data
