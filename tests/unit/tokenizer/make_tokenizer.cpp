// Which files a name means: small tokenizers of our own in temporary directories, and every message
// that a wrong name or a half directory gets.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "chat_template/chat_template.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_files.h"

namespace tptrain::tokenizer {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;
using Ids = std::vector<int32_t>;

// Byte-level BPE of a, b and ab.
const char* kTokenizerJson = R"({
 "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false,
   "rstrip": false, "normalized": false, "special": true}],
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
 "decoder": {"type": "ByteLevel"},
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})";

TEST_CASE("a directory: tokenizer.json goes first, then vocab.json with merges.txt") {
  const TempDir dir;
  dir.put("vocab.json", R"({"a": 0, "b": 1, "x": 2, "<end>": 3})");
  dir.put("merges.txt", "#version: 0.2\n");
  dir.put("tokenizer_config.json", R"({"eos_token": {"content": "<end>"}})");
  const auto pair = make_tokenizer(dir.path().string());
  CHECK(pair->encode("ab") == Ids{0, 1});
  CHECK(pair->end_of_text() == 3);
  CHECK(make_tokenizer((dir / "vocab.json").string())->encode("ab") == Ids{0, 1});

  dir.put("tokenizer.json", kTokenizerJson);
  const auto json = make_tokenizer(dir.path().string());
  CHECK(json->encode("ab") == Ids{2});
  CHECK(json->end_of_text() == 3);
  CHECK(make_tokenizer((dir / "tokenizer.json").string())->hash() == json->hash());
}

TEST_CASE("the end of text is what the configuration names, in either spelling, in either file") {
  for (const char* token : {R"("<end>")", R"({"content": "<end>", "__type": "AddedToken"})"}) {
    for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
      const TempDir dir;
      dir.put("tokenizer.json", kTokenizerJson);
      dir.put(file, std::string(R"({"eos_token": )") + token + "}");
      CHECK(make_tokenizer(dir.path().string())->end_of_text() == 3);
    }
  }
}

TEST_CASE("names that mean no tokenizer say what would") {
  const TempDir dir;
  const std::string path = dir.path().string();
  CHECK(message_of<ConfigError>([] { make_tokenizer("gpt2"); }) ==
        "config error: the tokenizer \"gpt2\" does not exist: it must be bytes, a directory with "
        "tokenizer.json, tokenizer.model, or vocab.json with merges.txt, or such a file.\n"
        "  A name on the Hugging Face hub is not looked up: tptrain fetch NAME brings it into a "
        "folder.");
  CHECK(message_of<ConfigError>([&] { make_tokenizer(path); }) ==
        "config error: " + path +
            ": this directory holds no tokenizer: it must hold tokenizer.json, tokenizer.model, or "
            "vocab.json with merges.txt.\n  Name the directory of a model as it is downloaded, a "
            "file of these, or bytes.");
  dir.put("vocab.json", "{}");
  CHECK(has(message_of<ConfigError>([&] { make_tokenizer(path); }),
            "this directory holds no tokenizer (vocab.json is there, merges.txt is not)"));
  CHECK(has(message_of<ConfigError>([] { make_tokenizer("/dev/null"); }),
            "the tokenizer \"/dev/null\" is neither a file nor a directory"));
}

TEST_CASE("vocab.json with merges.txt of another kind than GPT-2's is refused") {
  const TempDir dir;
  dir.put("vocab.json", R"({"a": 0})");
  dir.put("merges.txt", "");
  dir.put("tokenizer_config.json", R"({"tokenizer_class": "Qwen2Tokenizer"})");
  CHECK(has(message_of<DataError>([&] { make_tokenizer(dir.path().string()); }),
            "tokenizer_config.json says Qwen2Tokenizer, but there are only vocab.json and "
            "merges.txt: it must have a tokenizer.json: the two files do not say how this kind "
            "cuts text into words"));
  dir.put("tokenizer_config.json", R"({"add_bos_token": true})");
  CHECK(has(message_of<DataError>([&] { make_tokenizer(dir.path().string()); }),
            "add_bos_token is true, which is not built for vocab.json with merges.txt"));
}

TEST_CASE("a rank file of unknown size does not say its pattern") {
  const TempDir dir;
  dir.put("tokenizer.model", "YQ== 0\nYg== 1\n");
  CHECK(has(message_of<DataError>([&] { make_tokenizer(dir.path().string()); }),
            "a tiktoken file of 2 ranks: it must have the 128,000 of Llama 3"));
}

TEST_CASE("damaged configuration files are named with the fault") {
  const TempDir dir;
  dir.put("tokenizer.json", kTokenizerJson);
  const auto message = [&](const char* file, const std::string& text) {
    dir.put(file, text);
    const std::string said = message_of<DataError>([&] { make_tokenizer(dir.path().string()); });
    std::filesystem::remove(dir / file);
    return said;
  };
  const char* config = "tokenizer_config.json";
  CHECK(has(message(config, "{\"eos_token\": "),
            "tokenizer_config.json: not valid JSON: parse error at line 1, column 15"));
  CHECK(has(message(config, R"({"x": {"a": 1, "a": 1}})"), "names the key \"a\" twice"));
  CHECK(has(message(config, "[]"), "tokenizer_config.json: holds array: it must hold one object"));
  CHECK(has(message(config, R"({"eos_token": 7})"),
            "eos_token is number: it must be a string, or an object with a string \"content\""));
  CHECK(has(message(config, R"({"eos_token": ""})"), "eos_token is an empty string"));
  CHECK(has(message(config, R"({"add_bos_token": "yes"})"),
            "add_bos_token is string: it must be true or false"));
  CHECK(has(message(config, R"({"added_tokens_decoder": {"x": "y"}})"),
            "added_tokens_decoder has the key \"x\": it must have ids as keys"));
  CHECK(has(message(config, R"({"added_tokens_decoder": {"4": {"content": "y", "special": 1}}})"),
            "added_tokens_decoder.4.special is number: it must be true or false"));
  CHECK(has(message(config, R"({"chat_template": 5})"),
            "chat_template is number: it must be a string, or a list of {\"name\": ..., "
            "\"template\": ...}"));
  CHECK(has(message(config, std::string(100, '[')), "JSON nested deeper than this format ever is"));
  CHECK(has(message("added_tokens.json", R"({"<x>": -1})"), "\"<x>\" is number: it must be an id"));
  CHECK(has(message("special_tokens_map.json", R"({"additional_special_tokens": "x"})"),
            "additional_special_tokens is string: it must be a list of tokens"));
}

TEST_CASE("the chat template: a string, a named list, or a file of its own") {
  const TempDir dir;
  const std::string path = dir.path().string();
  const auto text = [&](const char* which = "default") {
    return chat_template::ChatTemplate::from_config(read_tokenizer_config(path), which)
        .render({{"user", "hi"}});
  };
  CHECK(has(message_of<ConfigError>([&] { text(); }),
            path + ": this tokenizer has no chat template: it must have chat_template in "
                   "tokenizer_config.json, or a chat_template.jinja beside it"));
  dir.put("tokenizer_config.json",
          R"({"bos_token": {"content": "<b>"}, "chat_template": "{{ bos_token }}1"})");
  CHECK(text() == "<b>1");
  dir.put("chat_template.json", R"({"chat_template": "2"})");
  CHECK(text() == "2");
  dir.put("chat_template.jinja", "3\n");
  CHECK(text() == "3");
  std::filesystem::remove(dir / "chat_template.jinja");
  std::filesystem::remove(dir / "chat_template.json");
  dir.put("tokenizer_config.json",
          R"({"chat_template": [{"name": "default", "template": "4"},
                                {"name": "tool_use", "template": "5"}]})");
  CHECK(text() == "4");
  CHECK(text("tool_use") == "5");
  // A conversation with tools gets it by itself, also where there are none in the list.
  const auto rendered = [&](const char* tools) {
    return chat_template::ChatTemplate::from_tokenizer(path).render_json(
        nlohmann::ordered_json::parse(R"([{"role": "user"}])"),
        {.tools = nlohmann::ordered_json::parse(tools)});
  };
  CHECK(rendered("null") == "4");
  CHECK(rendered("[]") == "5");
  CHECK(has(message_of<ConfigError>([&] { text("rag"); }),
            "there is no chat template called \"rag\": it must be one of default, tool_use"));
  // Files count instead of what tokenizer_config.json has, whichever they are.
  dir.put("additional_chat_templates/rag.jinja", "6");
  CHECK(has(message_of<ConfigError>([&] { text(); }), "it must be one of rag"));
  dir.put("chat_template.jinja", "7");
  CHECK(text() == "7");
  CHECK(text("rag") == "6");
}

TEST_CASE("the files of a tokenizer are those that stand beside it") {
  const TempDir dir;
  CHECK(tokenizer_file_names("bytes").empty());
  CHECK(tokenizer_file_names(dir.path().string()).empty());
  for (const char* name : {"merges.txt", "tokenizer.json", "chat_template.jinja", "model.bin"}) {
    dir.put(name, "");
  }
  const std::vector<std::string> names = {"tokenizer.json", "merges.txt", "chat_template.jinja"};
  CHECK(tokenizer_file_names(dir.path().string()) == names);
  CHECK(tokenizer_file_names((dir / "tokenizer.json").string()) == names);
  CHECK(tokenizer_file_names((dir / "model.bin").string()).empty());
}

TEST_CASE("documents are encoded alike by any number of threads, and the first fault is told") {
  const TempDir dir;
  dir.put("tokenizer.json", kTokenizerJson);
  const auto tokenizer = make_tokenizer(dir.path().string());
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) texts.push_back(std::string(i, 'a') + "b");
  std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto one = encode_documents(*tokenizer, views, {}, 1);
  REQUIRE(one.size() == 100);
  CHECK(one[2] == Ids{0, 2});
  CHECK(encode_documents(*tokenizer, views, {}, 7) == one);
  views[60] = "aa\xff";
  views[40] = "\xff";
  CHECK(
      has(message_of<DataError>([&] { encode_documents(*tokenizer, views, {}, 4); }), "offset 0"));
}

}  // namespace
}  // namespace tptrain::tokenizer
