// tokenizer.model of Llama-2 against the vectors of the Hugging Face library. Needs
// TPTRAIN_TEST_DATA.
#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "support/tokenizer_test_data.h"
#include "tokenizer/sentencepiece_tokenizer.h"

namespace tptrain::tokenizer {
namespace {

using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> llama2() {
  const auto folder = testing::tokenizer_data("llama2");
  return load_sentencepiece(testing::content_of(folder / "tokenizer.model"), "tokenizer.model",
                            read_tokenizer_config(folder.string()));
}

TEST_CASE("tokenizer.model of Llama-2 gives the ids and texts of its tokenizer.json") {
  const auto tokenizer = llama2();
  const auto vectors = testing::json_of(testing::tokenizer_data("llama2") / "vectors.json");
  CHECK(tokenizer->vocab_size() == vectors["vocab_size"].get<int64_t>());
  CHECK(tokenizer->end_of_text() == 2);
  REQUIRE(vectors["cases"].size() == 104);
  for (const auto& c : vectors["cases"]) {
    INFO(c["name"].get<std::string>());
    const std::string text = c["text"].get<std::string>();
    const Ids ids = tokenizer->encode(text, {.add_special = true});
    CHECK(ids == c["ids"].get<Ids>());
    const Ids plain = tokenizer->encode(text);
    CHECK(plain == c["ids_no_special"].get<Ids>());
    CHECK(tokenizer->encode(text, {.special_as_text = true}) ==
          c["ids_special_as_text"].get<Ids>());
    // The library shows an added token with the space that it was found with; an id has one
    // spelling here, that of the file.
    auto tokens = c["tokens"].get<std::vector<std::string>>();
    REQUIRE(tokens.size() == plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      const std::string entry = tokenizer->token(plain[i]);
      const bool added = plain[i] < 3;
      CHECK(tokens[i] == (added && tokens[i] != entry ? "\xE2\x96\x81" + entry : entry));
      CHECK(tokenizer->find(entry) == plain[i]);
    }
    CHECK(tokenizer->decode(ids, {.skip_special = false}) == c["decoded"].get<std::string>());
    CHECK(tokenizer->decode(ids) == c["decoded_skip_special"].get<std::string>());
  }
}

TEST_CASE("the model file alone takes its own control symbols, and encodes text alike") {
  const auto tokenizer = load_sentencepiece(
      testing::content_of(testing::tokenizer_data("llama2") / "tokenizer.model"), "m", {});
  const auto vectors = testing::json_of(testing::tokenizer_data("llama2") / "vectors.json");
  REQUIRE_FALSE(vectors["cases"].empty());
  for (const auto& c : vectors["cases"]) {
    INFO(c["name"].get<std::string>());
    CHECK(tokenizer->encode(c["text"].get<std::string>(), {.special_as_text = true}) ==
          c["ids_special_as_text"].get<Ids>());
  }
  // A control symbol is found wherever it stands; what follows begins with a space of its own, as
  // in the Python tokenizer of transformers 4.
  CHECK(tokenizer->encode("a</s>b", {.add_special = true}) == Ids{1, 263, 2, 289});
  CHECK(tokenizer->hash() != llama2()->hash());
}

TEST_CASE("bytes that are no UTF-8 are refused with their offset") {
  const auto tokenizer = llama2();
  const auto invalid = testing::json_of(testing::tokenizer_data("llama2") / "invalid_utf8.json");
  for (const auto& c : invalid["cases"]) {
    INFO(c["name"].get<std::string>());
    const std::string hex = c["hex"].get<std::string>();
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    const std::string message = testing::message_of<DataError>([&] { tokenizer->encode(bytes); });
    CHECK(message.find("of the text is no UTF-8: it must be UTF-8 for this tokenizer") !=
          std::string::npos);
  }
  CHECK(testing::message_of<DataError>([&] {
          tokenizer->encode("caf\xe9 ok");
        }).starts_with("data error: the byte at offset 3 of the text is no UTF-8"));
}

}  // namespace
}  // namespace tptrain::tokenizer
