// The files beside a tokenizer.json: what transformers' AutoTokenizer makes of them, case by case
// (tests/golden/tokenizer_config, written by scripts/golden/tokenizer_config.py).
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {
namespace {

using nlohmann::json;
using testing::has;
using testing::message_of;
using testing::TempDir;

// What is refused, and what of the message must be there: versions of transformers differ, or an id
// of the files is not the one that the library gives.
const std::map<std::string, std::vector<std::string>> kRefused = {
    {"an id that the library does not give",
     {"the token there has the id 270 in the files beside the tokenizer", "gives it 280"}},
    {"PreTrainedTokenizerFast with add_prefix_space",
     {"tokenizer_config.json has add_prefix_space: true", "puts no space in front of a text"}}};

TEST_CASE("tokens and keys beside tokenizer.json give the ids of transformers, or are refused") {
  std::istringstream lines(
      read_file(TPTRAIN_SOURCE_DIR "/tests/golden/tokenizer_config/cases.json"));
  std::string line;
  std::getline(lines, line);
  const json head = json::parse(line);
  size_t cases = 0;
  std::set<std::string> hashes;
  while (std::getline(lines, line)) {
    const json one = json::parse(line);
    const std::string name = one["name"];
    INFO(name);
    ++cases;
    const TempDir dir;
    json tokenizer_json = head["tokenizer"];
    tokenizer_json.update(one["tokenizer"]);
    dir.put("tokenizer.json", tokenizer_json.dump());
    for (const auto& [file, content] : one["files"].items()) dir.put(file, content.dump());
    if (const auto refused = kRefused.find(name); refused != kRefused.end()) {
      const std::string message =
          message_of<DataError>([&] { make_tokenizer(dir.path().string()); });
      for (const std::string& part : refused->second) CHECK(has(message, part));
      continue;
    }
    const auto tokenizer = make_tokenizer(dir.path().string());
    CHECK(tokenizer->vocab_size() == one["size"].get<int64_t>());
    for (size_t i = 0; i < head["texts"].size(); ++i) {
      const std::string text = head["texts"][i];
      INFO(text);
      CHECK(tokenizer->encode(text, {.add_special = true}) ==
            one["ids"][i].get<std::vector<int32_t>>());
    }
    hashes.insert(tokenizer->hash());
  }
  CHECK(cases == 31);
  CHECK(hashes.size() > 20);  // what changes ids changes the hash
}

TEST_CASE("the bytes tokenizer, written as files, gives the same ids") {
  const TempDir dir;
  for (const auto& [name, text] : byte_tokenizer_files()) dir.put(name, text);
  const auto files = make_tokenizer(dir.path().string());
  const auto bytes = make_byte_tokenizer();
  CHECK(files->vocab_size() == bytes->vocab_size());
  CHECK(files->end_of_text() == bytes->end_of_text());
  for (const std::string text : {"a b\n\tc", "gr\xc3\xbc\xc3\x9f <|endoftext|> \xe4\xb8\xad", ""}) {
    CHECK(files->encode(text, {.add_special = true}) == bytes->encode(text));
    CHECK(files->decode(files->encode(text)) == text);
  }
}

TEST_CASE("a file that is something else is told of as what it is") {
  const TempDir dir;
  const auto message = [&](const char* name, const char* text) {
    dir.put(name, text);
    return message_of<DataError>([&] { make_tokenizer(dir.path().string()); });
  };
  const char* pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
  CHECK(has(message("tokenizer.model", pointer), "tokenizer.model: this is a Git LFS pointer"));
  CHECK(has(message("tokenizer.json", pointer), "tokenizer.json: this is a Git LFS pointer"));
  CHECK(has(message("tokenizer.json", "\n<!DOCTYPE html>\n<html>"), "this is a web page"));
  CHECK(has(message("tokenizer_config.json", "Entry not found"), "the hub's answer"));
  // Words that Python's json writes, in keys that nobody reads.
  for (const auto& [name, text] : byte_tokenizer_files()) dir.put(name, text);
  dir.put("tokenizer_config.json", R"({"model_max_length": Infinity, "x": [-Infinity, NaN]})");
  CHECK(make_tokenizer(dir.path().string())->vocab_size() == 257);
}

TEST_CASE("Unigram is refused by its name, also where the file does not name it") {
  const TempDir dir;
  for (const char* type : {R"("type": "Unigram", )", ""}) {
    dir.put("tokenizer.json", std::string(R"({"model": {)") + type +
                                  R"("unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]}})");
    CHECK(has(message_of<DataError>([&] { make_tokenizer(dir.path().string()); }),
              "type \"Unigram\": it must be BPE"));
  }
}

TEST_CASE("many added tokens take time in proportion, and far too many are refused") {
  const TempDir dir;
  const auto write = [&](int count) {
    json file = json::parse(byte_tokenizer_files()[0].second);
    const json token = file["added_tokens"][0];
    json decoder = json::object();
    for (int i = 1; i < count; ++i) {
      json one = token;
      one["id"] = 256 + i;
      one["content"] = "<" + std::to_string(i) + ">";
      file["added_tokens"].push_back(one);
      one.erase("id");
      decoder[std::to_string(256 + i)] = one;
    }
    dir.put("tokenizer.json", file.dump());
    dir.put("tokenizer_config.json", json{{"added_tokens_decoder", decoder}}.dump());
  };
  write(100'000);
  const auto tokenizer = make_tokenizer(dir.path().string());
  CHECK(tokenizer->vocab_size() == 100'256);
  CHECK(tokenizer->encode("a<99999>b") == std::vector<int32_t>{'a', 100'255, 'b'});
  write(300'000);
  CHECK(has(message_of<DataError>([&] { make_tokenizer(dir.path().string()); }),
            "more than 2,000,000 values outside model.vocab and model.merges"));
}

}  // namespace
}  // namespace tptrain::tokenizer
