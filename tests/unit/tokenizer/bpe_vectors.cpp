// BPE tokenizers of real models against the vectors of the Hugging Face library. Needs
// TPTRAIN_TEST_DATA.
#include <bit>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/files.h"
#include "base/utf8.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "support/tokenizer_test_data.h"
#include "tokenizer/bpe_loaders.h"
#include "tokenizer/sentencepiece_tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace tptrain::tokenizer {
namespace {

using Ids = std::vector<int32_t>;
using testing::message_of;

std::unique_ptr<Tokenizer> tokenizer_json(const std::string& model) {
  return load_tokenizer_json(testing::content_of(testing::tokenizer_data(model) / "tokenizer.json"),
                             model + "/tokenizer.json", "");
}

std::unique_ptr<Tokenizer> gpt2_pair() {
  const auto folder = testing::tokenizer_data("gpt2");
  return load_vocab_and_merges(testing::content_of(folder / "vocab.json"), "vocab.json",
                               testing::content_of(folder / "merges.txt"), "merges.txt", "");
}

std::unique_ptr<Tokenizer> llama3_ranks() {
  return load_tiktoken_ranks(
      testing::content_of(testing::tokenizer_data("llama3") / "tokenizer.model"), "tokenizer.model",
      llama3_tiktoken_options());
}

std::string little_endian(const Ids& ids) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)};
}

void check_vectors(const Tokenizer& tokenizer, const std::string& model) {
  const auto vectors = testing::json_of(testing::tokenizer_data(model) / "vectors.json");
  CHECK(tokenizer.vocab_size() == vectors["vocab_size"].get<int64_t>());
  REQUIRE(vectors["cases"].size() == 104);
  for (const auto& c : vectors["cases"]) {
    INFO(model << ": " << c["name"].get<std::string>());
    const std::string text = c["text"].get<std::string>();
    const Ids ids = tokenizer.encode(text, {.add_special = true});
    CHECK(ids == c["ids"].get<Ids>());
    const Ids plain = tokenizer.encode(text);
    CHECK(plain == c["ids_no_special"].get<Ids>());
    CHECK(tokenizer.encode(text, {.special_as_text = true}) == c["ids_special_as_text"].get<Ids>());
    const auto tokens = c["tokens"].get<std::vector<std::string>>();
    REQUIRE(tokens.size() == plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      const std::string entry = tokenizer.token(plain[i]);
      // The library shows an added token with the space that it was found with; an id has one
      // spelling here, that of the file.
      CHECK((tokens[i] == entry ||
             (model == "llama2" && plain[i] < 3 && tokens[i] == "\xE2\x96\x81" + entry)));
      CHECK(tokenizer.find(entry) == plain[i]);
    }
    CHECK(replace_invalid_utf8(tokenizer.decode(ids, {.skip_special = false})) ==
          c["decoded"].get<std::string>());
    CHECK(replace_invalid_utf8(tokenizer.decode(ids)) ==
          c["decoded_skip_special"].get<std::string>());
  }
}

TEST_CASE("tokenizer.json gives the library's ids, tokens and texts") {
  for (const char* model : {"qwen2", "llama3", "llama2", "gpt2"}) {
    check_vectors(*tokenizer_json(model), model);
  }
}

TEST_CASE("vocab.json with merges.txt gives what GPT-2's tokenizer.json gives") {
  check_vectors(*gpt2_pair(), "gpt2");
}

TEST_CASE("a tiktoken rank file gives what Llama-3's tokenizer.json gives") {
  const auto ranks = llama3_ranks();
  check_vectors(*ranks, "llama3");
  const auto json = tokenizer_json("llama3");
  for (int32_t id = 0; id < json->vocab_size(); ++id) {
    if (ranks->token(id) != json->token(id)) FAIL("id " << id);
  }
  CHECK(looks_like_tiktoken(
      testing::content_of(testing::tokenizer_data("llama3") / "tokenizer.model")));
  CHECK_FALSE(looks_like_tiktoken(
      testing::content_of(testing::tokenizer_data("llama2") / "tokenizer.model")));
}

TEST_CASE("the end of text is found by its usual names, or as asked") {
  CHECK(tokenizer_json("qwen2")->end_of_text() == 151643);
  CHECK(tokenizer_json("llama3")->end_of_text() == 128001);
  CHECK(tokenizer_json("llama2")->end_of_text() == 2);
  CHECK(gpt2_pair()->end_of_text() == 50256);
  const std::string file = testing::content_of(testing::tokenizer_data("qwen2") / "tokenizer.json");
  CHECK(load_tokenizer_json(file, "f", "<|im_end|>")->end_of_text() == 151645);
}

TEST_CASE("whole files have the library's ids, on one thread or several") {
  const auto corpus = testing::json_of(testing::tokenizer_data("") / "corpus.json");
  for (const char* model : {"qwen2", "llama3", "llama2", "gpt2"}) {
    const auto tokenizer = tokenizer_json(model);
    for (const char* name : {"wikitext-2-raw/valid.txt", "wikitext-2-raw/train_head.txt"}) {
      INFO(model << " " << name);
      const auto& expected = corpus.at(name).at(model);
      const std::string text =
          testing::content_of(testing::tokenizer_data("") / ".." / "text" / name);
      const Ids ids = tokenizer->encode(text);
      CHECK(ids.size() == expected["tokens"].get<size_t>());
      CHECK(sha256_hex(little_endian(ids)) == expected["sha256"].get<std::string>());
      // Lines as documents: the pieces that one thread has met must not change what another gets.
      std::vector<std::string_view> lines;
      for (size_t begin = 0; begin < text.size() && lines.size() < 2000;) {
        const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
        lines.push_back(std::string_view(text).substr(begin, end - begin));
        begin = end;
      }
      CHECK(encode_documents(*tokenizer, lines, {}, 4) ==
            encode_documents(*tokenizer_json(model), lines, {}, 1));
    }
  }
}

TEST_CASE("text that is no UTF-8 is refused with the place of its first bad byte") {
  for (const char* model : {"qwen2", "llama3", "llama2", "gpt2"}) {
    const auto tokenizer = tokenizer_json(model);
    const auto invalid = testing::json_of(testing::tokenizer_data(model) / "invalid_utf8.json");
    REQUIRE_FALSE(invalid["cases"].empty());
    for (const auto& c : invalid["cases"]) {
      INFO(model << ": " << c["name"].get<std::string>());
      std::string bytes;
      const std::string hex = c["hex"].get<std::string>();
      for (size_t i = 0; i < hex.size(); i += 2) {
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
      }
      const std::string message = message_of<DataError>([&] { tokenizer->encode(bytes); });
      CHECK(message.find("at offset " + std::to_string(first_invalid_utf8(bytes)) + ",") !=
            std::string::npos);
      CHECK(replace_invalid_utf8(bytes) == c["replaced"].get<std::string>());
      CHECK(tokenizer->encode(replace_invalid_utf8(bytes)) == c["ids_if_replaced"].get<Ids>());
    }
  }
}

TEST_CASE("the hash tells tokenizers apart and stays as it is") {
  // Token files and checkpoints hold it: a change here makes them foreign.
  CHECK(gpt2_pair()->hash() == "d14e88eb91d6ad171bdfce72f643a9ad859a3fd3a294463f8e42ff4f146b3ffc");
  CHECK(tokenizer_json("gpt2")->hash() ==
        "2c2079cf5f32639521c93b89306e7e44ee67d759437814ae81881103257bee7a");
  std::string changed = testing::content_of(testing::tokenizer_data("gpt2") / "tokenizer.json");
  changed.replace(changed.find("\"add_prefix_space\": false"), 25, "\"add_prefix_space\": true ");
  CHECK(load_tokenizer_json(changed, "changed", "")->hash() != tokenizer_json("gpt2")->hash());
}

/// The tokenizer of Llama-2 as those after it are written: other ways of putting spaces.
std::unique_ptr<Tokenizer> llama2_with(const std::string& normalizer,
                                       const std::string& pre_tokenizer) {
  auto json = testing::json_of(testing::tokenizer_data("llama2") / "tokenizer.json");
  json["normalizer"] = nlohmann::ordered_json::parse(normalizer);
  json["pre_tokenizer"] = nlohmann::ordered_json::parse(pre_tokenizer);
  auto token = json["added_tokens"].back();
  token["id"] = json["model"]["vocab"].size();
  token["content"] = "\n\n";
  token["normalized"] = false;
  json["added_tokens"].push_back(token);
  return load_tokenizer_json(json.dump(), "llama2 changed", "");
}

std::vector<std::pair<std::string, std::shared_ptr<Tokenizer>>> tokenizers_that_are_cut() {
  const auto folder = testing::tokenizer_data("llama2");
  const std::string spaces =
      R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})";
  return {{"qwen2", tokenizer_json("qwen2")},
          {"gpt2", tokenizer_json("gpt2")},
          {"llama3", tokenizer_json("llama3")},
          {"llama2", tokenizer_json("llama2")},
          {"sentencepiece",
           load_sentencepiece(testing::content_of(folder / "tokenizer.model"), "tokenizer.model",
                              read_tokenizer_config(folder.string()))},
          {"gemma", llama2_with(spaces, R"({"type": "Split", "pattern": {"String": " "},
                                        "behavior": "MergedWithPrevious", "invert": false})")},
          {"first", llama2_with("null", R"({"type": "Metaspace", "replacement": "\u2581",
                                        "prepend_scheme": "first", "split": false})")},
          {"always", llama2_with("null", R"({"type": "Metaspace", "replacement": "\u2581",
                                         "prepend_scheme": "always", "split": true})")}};
}

TEST_CASE("a text may be cut where the tokenizer says, whatever stands on both sides") {
  // Characters that the patterns treat in ways of their own, words, and special tokens.
  const std::vector<std::string> bricks = {"a",
                                           "the",
                                           "I'",
                                           "'s",
                                           "'S",
                                           "1",
                                           "23",
                                           " ",
                                           "  ",
                                           "\n",
                                           "\n\n",
                                           "\r",
                                           "\t",
                                           "\n ",
                                           " \n",
                                           ".",
                                           "...",
                                           "-",
                                           "\xC3\xA9",
                                           "e\xCC\x81",
                                           "\xE6\x97\xA5",
                                           "_",
                                           "\xC2\xA0",
                                           "\xE2\x80\x83",
                                           "<|endoftext|>",
                                           "<|im_start|>",
                                           "\n<",
                                           "A",
                                           "z",
                                           "Z\n",
                                           "\r\n",
                                           "\n7",
                                           "\n\xD0\x96",
                                           "\xD0\x96\n",
                                           "\n\xCC\x81",
                                           "\xF0\x9F\x8C\x8D\n",
                                           " \xD0\xB6",
                                           "<s>",
                                           "</s>",
                                           " <s>",
                                           "\xE2\x96\x81",
                                           " x",
                                           "y ",
                                           "\xC3\xA9 "};
  std::mt19937_64 random(20261130);
  for (const auto& [name, tokenizer] : tokenizers_that_are_cut()) {
    int cuts = 0;
    for (int round = 0; round < 1000; ++round) {
      std::string text;
      for (int n = 0; n < 30; ++n) text += bricks[random() % bricks.size()];
      const Ids whole = tokenizer->encode(text);
      Ids parts;
      std::vector<size_t> at = {text.size()};
      for (size_t cut = tokenizer->last_cut(text); cut > 0;
           cut = tokenizer->last_cut(std::string_view(text).substr(0, cut)))
        at.push_back(cut);
      for (size_t begin = 0; !at.empty(); at.pop_back()) {
        const size_t skipped = begin > 0 ? tokenizer->skipped_behind_cut() : 0;
        const Ids ids = tokenizer->encode(
            std::string_view(text).substr(begin + skipped, at.back() - begin - skipped));
        parts.insert(parts.end(), ids.begin(), ids.end());
        begin = at.back();
        ++cuts;
      }
      INFO(name << ": " << text);
      REQUIRE(parts == whole);
    }
    INFO(name);
    CHECK(cuts > 2000);
  }
}

TEST_CASE("text of any script and with any line ends has places to be cut at") {
  for (const auto& [name, tokenizer] : tokenizers_that_are_cut()) {
    const bool at_lines = name == "qwen2" || name == "gpt2" || name == "llama3";
    for (const std::string text : {"a.\nb", "7\n7", "\xD0\x96\n\xD0\x96",
                                   "\xE6\x97\xA5\n\xE6\x97\xA5", "a\r\nb", "a\n\nb", "a \nb"}) {
      INFO(name << ": " << text);
      CHECK((tokenizer->last_cut(text) > 0) == at_lines);
    }
    CHECK(tokenizer->last_cut("\xD0\x96 \xD0\x96") == 2);  // one long line
    // Beside what is not whole characters there is none.
    for (const std::string text : {"7\n\xFF", "7\n\xE6\x97", "7\n", "\n", "7 \xD0", " a"}) {
      INFO(name << ": " << text);
      CHECK(tokenizer->last_cut(text) == 0);
    }
  }
}

}  // namespace
}  // namespace tptrain::tokenizer
