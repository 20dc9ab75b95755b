// What is learned of a conversation, against Jinja's rendering of it: tests/golden/chat/masks.json,
// written by scripts/golden/chat_masks.py, or the file that TPTRAIN_CHAT_MASKS names, of published
// templates (scripts/golden/published_templates.py). Every field is a word of its own there.
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
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
  explicit MarkTokenizer(std::vector<std::string> special) : special_(std::move(special)) {}
  int64_t vocab_size() const override { return 256 + static_cast<int64_t>(special_.size()); }
  int32_t end_of_text() const override { return find("</s>"); }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      int32_t id = static_cast<unsigned char>(text[at]);
      size_t length = 1;
      for (size_t i = 0; i < special_.size(); ++i) {
        if (!text.substr(at).starts_with(special_[i])) continue;
        id = 256 + static_cast<int32_t>(i);
        length = special_[i].size();
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
                    : special_.at(static_cast<size_t>(id - 256));
  }
  int32_t find(std::string_view token) const override {
    for (size_t i = 0; i < special_.size(); ++i) {
      if (special_[i] == token) return 256 + static_cast<int32_t>(i);
    }
    return -1;
  }
  std::string hash() const override { return "marks"; }

 private:
  const std::vector<std::string> special_;
};

ordered_json golden() {
  const char* other = std::getenv("TPTRAIN_CHAT_MASKS");
  std::ifstream file(other ? other : TPTRAIN_SOURCE_DIR "/tests/golden/chat/masks.json");
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

const std::vector<std::string> kSpecial = {"<s>", "</s>", "<|start|>", "<|end|>", "<|eot|>"};

/// Nothing where the template writes what is refused by name, and may.
std::optional<LabelledIds> encoded(const Conversation& conversation,
                                   const chat_template::ChatTemplate& chat_template,
                                   const MarkTokenizer& tokenizer, bool with_end, bool may_refuse) {
  try {
    return encode_conversation(conversation, chat_template, tokenizer, {.train_on_end = with_end});
  } catch (const DataError&) {
    if (!may_refuse) throw;
    return std::nullopt;
  }
}

/// How many words were looked for.
int check_learned(const ordered_json& c, const Learned& got, bool with_end) {
  const auto end = c["end"].get<std::string>();
  int words = 0;
  for (const auto& word : c["learned"]) {
    const auto text = word.get<std::string>();
    const size_t at = got.text.find(text);
    INFO(text << " in " << got.text);
    CHECK(got.all(at, text.size()));
    ++words;
  }
  for (const auto& word : c.contains("closed") ? c["closed"] : c["learned"]) {
    const auto text = word.get<std::string>();
    const size_t close = got.text.find(end, got.text.find(text));
    INFO(text << " in " << got.text);
    REQUIRE(close != std::string::npos);
    CHECK(got.bytes[close] == with_end);
  }
  for (const auto& word : c["never"]) {
    const auto text = word.get<std::string>();
    INFO(text << " in " << got.text);
    for (size_t at = got.text.find(text); at != std::string::npos; at = got.text.find(text, at + 1))
      CHECK(got.none(at, text.size()));
  }
  return words;
}

TEST_CASE("the assistant's fields are learned as Jinja writes them, and the end of its turns") {
  const ordered_json all = golden();
  std::vector<std::pair<std::string, std::string>> constants;
  for (const auto& [name, value] : all["constants"].items())
    constants.emplace_back(name, value.get<std::string>());
  int words = 0;
  int refused = 0;
  for (const auto& c : all["cases"]) {
    const auto source = all["templates"][c["template"].get<std::string>()].get<std::string>();
    const auto chat_template =
        chat_template::ChatTemplate::from_source(source, "golden", constants);
    const Conversation conversation = {.messages = c["messages"], .tools = c["tools"]};
    const MarkTokenizer tokenizer(c.value("special", kSpecial));
    for (const bool with_end : {true, false}) {
      INFO(c["name"].get<std::string>() << (c["tools"].is_null() ? "" : " with tools"));
      const std::optional<LabelledIds> row =
          encoded(conversation, chat_template, tokenizer, with_end, c.value("may_refuse", false));
      if (!row) {
        ++refused;
        continue;
      }
      const Learned got = learned(*row, tokenizer);
      REQUIRE(got.text == c["text"].get<std::string>());
      words += check_learned(c, got, with_end);
    }
  }
  std::printf("%d words learned as marked, %d texts refused by name\n", words, refused);
  CHECK(words > 200);
}

}  // namespace
}  // namespace tptrain::data
