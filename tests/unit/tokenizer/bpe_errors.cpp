// Every refusal of the BPE loaders, and what it says.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "tokenizer/bpe_loaders.h"
#include "tokenizer/regex.h"

namespace tptrain::tokenizer {
namespace {

using nlohmann::json;
using testing::message_of;

// A tokenizer.json as small as one can be; tests break it in one place.
json small() {
  return json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
              "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
              "byte_fallback": false, "ignore_merges": false,
              "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": [["a", "b"]]}})");
}

std::unique_ptr<Tokenizer> load(const json& file, const std::string& eos = "") {
  return load_tokenizer_json(file.dump(), "t.json", eos);
}

// The message without "data error: ".
std::string refusal_of(const std::string& text) {
  const std::string message =
      message_of<DataError>([&] { load_tokenizer_json(text, "t.json", ""); });
  const std::string kind = "data error: ";
  return message.starts_with(kind) ? message.substr(kind.size()) : message;
}
std::string refusal_of(const json& file) { return refusal_of(file.dump()); }

// small() with another value at a place such as "/model/type".
std::string refusal_with(const std::string& place, const json& value) {
  json file = small();
  file[json::json_pointer(place)] = value;
  return refusal_of(file);
}

TEST_CASE("the small file itself loads and encodes") {
  const auto tokenizer = load(small());
  CHECK(tokenizer->encode("abcab<s>a") == std::vector<int32_t>{2, 3, 2, 4, 0});
  CHECK(tokenizer->encode("a<s>", {.special_as_text = true}) == std::vector<int32_t>{0});
  CHECK(tokenizer->decode({2, 4, 99, -1, 3}) == "ab c");  // without a decoder, as the library
  CHECK(tokenizer->vocab_size() == 5);
  CHECK(tokenizer->end_of_text() == -1);
  CHECK(tokenizer->find("zz") == -1);
  CHECK(tokenizer->token(7).empty());
  CHECK_FALSE(tokenizer->encodes_piecewise());
  CHECK(tokenizer->last_cut("ab\nab") == 0);  // nothing is known of how it cuts
  CHECK(load(small(), "<s>")->end_of_text() == 4);
}

TEST_CASE("a file that is no JSON is refused with its place") {
  CHECK(refusal_of(std::string("{\"model\": ")) ==
        "t.json: not valid JSON: parse error at line 1, column 11: syntax error while parsing "
        "value - unexpected end of input; expected '[', '{', or a literal.");
  CHECK(refusal_of(std::string("[1]")) == "t.json: JSON array: it must be an object.");
  CHECK(refusal_of(std::string("{\"a\": \"\xff\"}")).find("t.json: not valid JSON: ") == 0);
  CHECK(refusal_of(std::string(R"({"model": {"type": "BPE", "type": "BPE"}})")) ==
        "t.json: JSON object names the key \"type\" twice: it must name each key once.");
  CHECK(refusal_of(std::string(40, '[')) ==
        "t.json: JSON nested deeper than this format ever is: it must stay within 32 levels.");
}

TEST_CASE("what is not known is refused by name") {
  CHECK(refusal_with("/version", "2.0") == "t.json: version \"2.0\": it must be 1.0.");
  CHECK(refusal_with("/model/type", "Unigram") ==
        "t.json.model: type \"Unigram\": it must be BPE, the model that is built.\n"
        "  Sentencepiece's models (Unigram among them) are read from a tokenizer.model: take "
        "tokenizer.json away where there is one beside it.");
  CHECK(refusal_with("/model/new_option", true)
            .find("t.json.model: the key \"new_option\" is not known: it must have no keys but "
                  "type,") == 0);
  CHECK(refusal_with("/later", 1).find("t.json: the key \"later\" is not known") == 0);
  CHECK(refusal_with("/model/dropout", 0.1) ==
        "t.json.model: dropout is 0.1: it must be null: the same text always gives the same ids.");
  CHECK(refusal_with("/normalizer", {{"type", "Precompiled"}})
            .find("t.json.normalizer: type \"Precompiled\": it must be one of those that are "
                  "built: ") == 0);
  CHECK(refusal_with("/pre_tokenizer", {{"type", "UnicodeScripts"}})
            .find("t.json.pre_tokenizer: type \"UnicodeScripts\": it must be one of") == 0);
  CHECK(refusal_with("/post_processor", {{"type", "Other"}})
            .find("t.json.post_processor: type \"Other\": it must be one of") == 0);
  CHECK(refusal_with("/decoder", {{"type", "CTC"}})
            .find("t.json.decoder: type \"CTC\": it must be one of") == 0);
  CHECK(refusal_with("/normalizer",
                     json::parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"},
                                     {"type": "Nmt"}]})"))
            .find("t.json.normalizer.normalizers[1]: type \"Nmt\"") == 0);
}

TEST_CASE("values of another kind are refused") {
  CHECK(refusal_with("/model", json::array()) == "t.json.model: is array: it must be an object.");
  CHECK(refusal_with("/model/fuse_unk", 1) ==
        "t.json.model: \"fuse_unk\" is of kind number: it must be true or false.");
  CHECK(refusal_with("/added_tokens/0/id", -1) ==
        "t.json.added_tokens[0]: \"id\" is of kind number: it must be a whole number from 0 to "
        "2147483647.");
  json file = small();
  file["added_tokens"][0].erase("special");
  CHECK(refusal_of(file) ==
        "t.json.added_tokens[0]: \"special\" is missing: it must be true or false.");
  file = small();
  file.erase("model");
  CHECK(refusal_of(file) == "t.json: \"model\" is missing: it must be given.");
}

TEST_CASE("a vocabulary must be one") {
  CHECK(refusal_with("/model/vocab", json::object()) ==
        "t.json: model.vocab: no tokens: it must have some.");
  CHECK(refusal_with("/model/vocab", json::array({0}))
            .find("t.json.model: \"vocab\" is of kind "
                  "array") == 0);
  CHECK(refusal_with("/model/vocab/a", 1) ==
        "t.json: model.vocab: the tokens a and b have the same id 1: it must have an id of their "
        "own each.");
  CHECK(refusal_with("/model/vocab/a", 2.5) ==
        "t.json: model.vocab: the token a has 2.5 as its id: it must have a whole number from 0 to "
        "2147483647.");
  CHECK(refusal_with("/model/vocab/a", json::array({1})) ==
        "t.json: model.vocab: the token a has array as its id: it must have a whole number from 0 "
        "to 2147483647.");
  CHECK(
      refusal_with("/model/vocab/a", 2'000'000'000) ==
      "t.json: model.vocab: the token a has the id 2000000000 of 4 tokens: it must have ids below "
      "1000016.");
  std::string twice = small().dump();
  twice.replace(twice.find("\"c\":3"), 5, "\"a\":3");
  CHECK(refusal_of(twice) ==
        "t.json: model.vocab: the token a is given twice: it must be given once.");
}

TEST_CASE("merges must join tokens to a token") {
  const auto with_merge = [](const json& merge) {
    return refusal_with("/model/merges", json::array({{"a", "b"}, merge}));
  };
  CHECK(with_merge("b  c") ==
        "t.json: model.merges: entry 1 is b  c: it must be \"left right\" or [\"left\", "
        "\"right\"].");
  CHECK(with_merge(5).find("t.json: model.merges: entry 1 is number: it must be") == 0);
  CHECK(with_merge({"a", "b", "c"}).find("t.json: model.merges: entry 1 is array: ") == 0);
  CHECK(with_merge(json::object()).find("t.json: model.merges: entry 1 is object: ") == 0);
  const std::string must = "it must join two tokens of the vocabulary to a third.";
  CHECK(with_merge({"x", "b"}) ==
        "t.json: model.merges: merge 1 joins \"x\" and \"b\": the first "
        "is not in the vocabulary: " +
            must);
  CHECK(with_merge({"b", "x"}) ==
        "t.json: model.merges: merge 1 joins \"b\" and \"x\": the second "
        "is not in the vocabulary: " +
            must);
  CHECK(with_merge("b c") ==
        "t.json: model.merges: merge 1 joins \"b\" and \"c\": \"bc\" is not "
        "in the vocabulary: " +
            must);
  CHECK(with_merge({"", "b"}) ==
        "t.json: model.merges: merge 1 joins \"\" and \"b\": one has no "
        "characters: " +
            must);
}

TEST_CASE("added tokens must have the ids that the library gives them") {
  CHECK(
      refusal_with("/added_tokens/0/id", 5) ==
      "t.json: added_tokens: the token <s> has the id 5, and the Hugging Face library gives it 4: "
      "it must follow the vocabulary and the tokens before it without a gap.");
  CHECK(refusal_with("/added_tokens/0/content", "a") ==
        "t.json: added_tokens: the token a has the id 4, and the Hugging Face library gives it 0: "
        "it must have the id that model.vocab has for it.");
  json file = small();
  file["added_tokens"].push_back(file["added_tokens"][0]);
  file["added_tokens"][1]["id"] = 5;
  CHECK(refusal_of(file) ==
        "t.json: added_tokens: the token <s> is given twice: it must be given once.");
  CHECK(refusal_with("/added_tokens/0/content", std::string(5000, 'x')) ==
        "t.json.added_tokens[0]: token of 5000 bytes: it must have at most 4096.");
  file = small();
  file["added_tokens"][0]["normalized"] = true;
  file["added_tokens"][0]["content"] = "  ";
  file["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
  CHECK(refusal_of(file) ==
        "t.json: added_tokens: the token    is normalised to nothing: it must keep a character, or "
        "be \"normalized\": false.");
}

TEST_CASE("the end of text must be a token") {
  CHECK(message_of<DataError>([] { load(small(), "</s>"); }) ==
        "data error: t.json: the end of text is \"</s>\": it must be an entry of the vocabulary.\n"
        "  Correct eos_token in tokenizer_config.json.");
}

TEST_CASE("patterns are checked when loading, and bounded when they run") {
  const auto split = [](const json& pattern) {
    return json{
        {"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}, {"invert", false}};
  };
  CHECK(refusal_with("/pre_tokenizer", split({{"Regex", "(a"}})) ==
        "t.json.pre_tokenizer.pattern: regular expression (a does not compile: end pattern with "
        "unmatched parenthesis.");
  CHECK(refusal_with("/pre_tokenizer", split({{"Regex", std::string(20'000, 'a')}})) ==
        "t.json.pre_tokenizer.pattern: regular expression of 20,000 bytes: it must have at most "
        "16,384.");
  CHECK(refusal_with("/pre_tokenizer", split({{"String", ""}})) ==
        "t.json.pre_tokenizer.pattern: empty pattern: it must have a character at least.");
  CHECK(refusal_with("/pre_tokenizer", split({{"Glob", "*"}}))
            .find("t.json.pre_tokenizer.pattern: the key \"Glob\" is not known") == 0);
  CHECK(refusal_with("/pre_tokenizer", split(json::object())) ==
        "t.json.pre_tokenizer.pattern: neither or both of \"Regex\" and \"String\": it must have "
        "one of them.");
  json other = split({{"String", "x"}});
  other["behavior"] = "Sideways";
  CHECK(refusal_with("/pre_tokenizer", other) ==
        "t.json.pre_tokenizer: behavior \"Sideways\": it must be Removed, Isolated, "
        "MergedWithPrevious, MergedWithNext or Contiguous.");
  json file = small();
  file["pre_tokenizer"] = split({{"Regex", "(?:a|aa)+$"}});
  const auto tokenizer = load(file);
  CHECK(tokenizer->encode("aaaa").size() == 4);
  CHECK(
      message_of<DataError>([&] { tokenizer->encode(std::string(60, 'a') + "b"); }) ==
      "data error: t.json.pre_tokenizer.pattern: regular expression (?:a|aa)+$ fails on a text of "
      "61 bytes: retry-limit-in-match over.\n"
      "  The pattern takes too many steps for this text. Cut the text into shorter documents, or "
      "use the tokenizer that the model was published with.");
}

TEST_CASE("long strings are cut at a character in messages") {
  std::string token;
  for (int i = 0; i < 60; ++i) token += "é";
  json file = small();
  file["model"]["vocab"][token] = -1;
  std::string beginning;
  for (int i = 0; i < 40; ++i) beginning += "é";
  CHECK(refusal_of(file) == "t.json: model.vocab: the token " + beginning +
                                "... (120 bytes) has -1 as its id: it must have a whole number "
                                "from 0 to 2147483647.");
}

TEST_CASE("files, values and texts are bounded") {
  const std::string huge((size_t{256} << 20) + 1, 'a');
  CHECK(refusal_of(huge) == "t.json: file of 256.00 MiB: it must have at most 256.00 MiB.");
  CHECK(message_of<DataError>([&] { load_tiktoken_ranks(huge, "r", llama3_tiktoken_options()); }) ==
        "data error: r: file of 256.00 MiB: it must have at most 256.00 MiB.");
  CHECK(
      message_of<DataError>([&] { load(small())->encode(huge); }) ==
      "data error: text of 256.00 MiB: it must be at most 256.00 MiB in one piece.\n  Cut it into "
      "documents.");
  std::string values = "{\"normalizer\": [0";
  for (int i = 0; i < 2'000'000; ++i) values += ",0";
  CHECK(refusal_of(values + "]}") ==
        "t.json: more than 2,000,000 values outside model.vocab and model.merges: it must have "
        "fewer.");
}

TEST_CASE("steps and what they put in are bounded") {
  json many = {{"type", "Sequence"}, {"normalizers", json::array()}};
  for (int i = 0; i < 65; ++i) many["normalizers"].push_back({{"type", "NFC"}});
  CHECK(refusal_with("/normalizer", many) ==
        "t.json.normalizer.normalizers[64]: more than 64 steps in sequence: it must have at most "
        "64.");
  CHECK(refusal_with("/normalizer", {{"type", "Prepend"}, {"prepend", std::string(2000, 'a')}}) ==
        "t.json.normalizer: \"prepend\" of 2000 bytes: it must have at most 1024.");
  json file = small();
  json doubling = {{"type", "Sequence"}, {"normalizers", json::array()}};
  for (int i = 0; i < 60; ++i) {
    doubling["normalizers"].push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  }
  file["normalizer"] = doubling;
  const std::string message = message_of<DataError>([&] { load(file)->encode("a"); });
  CHECK(message.find("data error: tokenizer: the normalizer lets a text of 1 bytes grow to ") == 0);
  file = small();
  doubling["decoders"] = doubling["normalizers"];
  doubling.erase("normalizers");
  file["decoder"] = doubling;
  const std::string decoded = message_of<DataError>([&] { load(file)->decode({0}); });
  CHECK(decoded.find("data error: tokenizer: the decoder lets 1 tokens grow to ") == 0);
}

TEST_CASE("a post-processor may add tokens of the vocabulary, once") {
  const json good = json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}})");
  json file = small();
  file["post_processor"] = good;
  CHECK(load(file)->encode("a", {.add_special = true}) == std::vector<int32_t>{4, 0});
  const auto refusal = [&](const std::string& place, const json& value) {
    json changed = small();
    changed["post_processor"] = good;
    changed["post_processor"][json::json_pointer(place)] = value;
    return refusal_of(changed);
  };
  CHECK(refusal("/special_tokens/<s>/ids", {77}) ==
        "t.json: post_processor: the post-processor adds the id 77: it must add ids of the "
        "vocabulary.");
  CHECK(refusal("/special_tokens/<s>/ids", {"x"}) ==
        "t.json.post_processor.special_tokens.<s>: \"ids\" is of kind array: it must be a list of "
        "ids.");
  CHECK(refusal("/single/0/SpecialToken/id", "<x>") ==
        "t.json.post_processor.single[0]: the special token <x>: it must stand in special_tokens.");
  CHECK(
      refusal("/single/1/Sequence/id", "B") ==
      "t.json.post_processor.single[1]: another sequence than one A: it must name the sequence A, "
      "once.");
  CHECK(refusal("/single", json::array()) ==
        "t.json.post_processor: no sequence in \"single\": it must name the sequence A, once.");
  file["post_processor"] = {{"type", "Sequence"}, {"processors", {good, good}}};
  CHECK(refusal_of(file) ==
        "t.json.post_processor.processors[1]: a second processor that adds "
        "tokens: it must be the only one.");
  CHECK(refusal_with("/post_processor",
                     {{"type", "BertProcessing"}, {"sep", {"<s>", 4}}, {"cls", "<s>"}}) ==
        "t.json.post_processor: \"cls\" is of kind string: it must be [token, id].");
}

TEST_CASE("other details of sections") {
  CHECK(refusal_with("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "__"}}) ==
        "t.json.pre_tokenizer: \"replacement\" is of kind string: it must be one character.");
  CHECK(refusal_with("/pre_tokenizer",
                     {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}}) ==
        "t.json.pre_tokenizer: prepend_scheme \"last\": it must be first, never or always.");
  CHECK(refusal_with("/pre_tokenizer",
                     {{"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}}) ==
        "t.json.pre_tokenizer: add_prefix_space is false and prepend_scheme \"always\": it must "
        "agree: never is the scheme without a space.");
  CHECK(refusal_with("/decoder", {{"type", "BPEDecoder"}, {"suffix", ""}}) ==
        "t.json.decoder: \"suffix\" is of kind string: it must be a string that is not empty.");
  json file = small();
  file["model"]["unk_token"] = "<unk>";
  CHECK(message_of<DataError>([&] { load(file)->encode("az"); }) ==
        "data error: tokenizer: the character z is not in the vocabulary, and neither is unk_token "
        "<unk>.\n  Leave such characters out, or give model.vocab the unknown token.");
}

TEST_CASE("vocab.json and merges.txt are refused with the line") {
  const auto refusal = [](const char* vocab, const char* merges) {
    return message_of<DataError>(
        [&] { load_vocab_and_merges(vocab, "vocab.json", merges, "merges.txt", ""); });
  };
  CHECK(refusal("{\"a\": 0, \"b\": 1, \"ab\": 2}", "#version: 0.2\r\na b\r\nab\n") ==
        "data error: merges.txt:3: \"ab\": it must be two tokens with one space between them.");
  CHECK(
      refusal("{\"a\": 0, \"b\": 1}", "a b\n") ==
      "data error: merges.txt: merge 0 joins \"a\" and \"b\": \"ab\" is not in the vocabulary: it "
      "must join two tokens of the vocabulary to a third.");
  CHECK(refusal("{\"a\": 0}", "#version\na \xff\n") ==
        "data error: merges.txt: the byte at offset 11: it must belong to UTF-8 text.");
  CHECK(
      refusal("{\"a\": {\"b\": 1}}", "") ==
      "data error: vocab.json: the token a has object as its id: it must have a whole number from "
      "0 to 2147483647.");
}

TEST_CASE("tokens beside a vocab.json have ids of their own") {
  const auto refusal = [](const std::vector<AddedToken>& added) {
    return message_of<DataError>([&] {
      load_vocab_and_merges("{\"a\": 0, \"b\": 1}", "vocab.json", "", "m", "",
                            {.added = added, .place = "dir"});
    });
  };
  const std::string rest =
      ": it must have the id that the vocabulary has for it, or follow the vocabulary and the "
      "tokens "
      "before it without a gap.\n"
      "  Load the tokenizer with transformers and save it (save_pretrained): that writes one "
      "tokenizer.json with every token.";
  CHECK(refusal({{.id = 1, .content = "<s>"}}) ==
        "data error: dir: the token <s> has the id 1 in the files beside the tokenizer, and the "
        "Hugging Face library gives it 2" +
            rest);
  CHECK(refusal({{.id = 2, .content = "<s>"}, {.id = 2, .content = "<t>"}}) ==
        "data error: dir: the token <t> has the id 2 in the files beside the tokenizer, and the "
        "Hugging Face library gives it 3" +
            rest);
  CHECK(refusal({{.id = 2, .content = "<s>"}, {.id = 1, .content = "b"}}) ==
        "(nothing was thrown)");
}

TEST_CASE("rank files are refused with the line") {
  const auto refusal = [](const std::string& text) {
    return message_of<DataError>(
        [&] { load_tiktoken_ranks(text, "r", llama3_tiktoken_options(256)); });
  };
  CHECK(refusal("IQ== 0\nIg= 1\n") ==
        "data error: r:2: line of 5 bytes that is no rank: it must be \"base64 rank\".");
  CHECK(refusal("IQ== 0\nIg== 2\n") ==
        "data error: r:2: rank 2 behind 1 ranks: it must count from 0 without a gap.");
  CHECK(refusal("IQ== 0\nIQ== 1\n") ==
        "data error: r:2: the token of rank 0 again: it must be given once.");
  std::string long_token;
  for (int i = 0; i < 200; ++i) long_token += "QUJD";
  CHECK(refusal(long_token + " 0\n") ==
        "data error: r:1: token of 600 bytes: it must have at most 512 bytes.");
  CHECK(refusal("IQ== 0\n") ==
        "data error: r: no rank for the single byte 0: it must have one for "
        "each of the 256 bytes.");
  std::string all;  // every byte in base64
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int byte = 0; byte < 256; ++byte) {
    all += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '=', ' '};
    all += std::to_string(byte) + "\n";
  }
  CHECK(load_tiktoken_ranks(all, "r", llama3_tiktoken_options(256))
            ->encode("a<|eot_id|>", {.add_special = true}) == std::vector<int32_t>{256, 97, 265});
  TiktokenOptions options = llama3_tiktoken_options(256);
  options.begin_of_text = "<s>";
  CHECK(message_of<DataError>([&] { load_tiktoken_ranks(all, "r", options); }) ==
        "data error: r: the begin of text is \"<s>\": it must be one of the special tokens.");
  CHECK_FALSE(looks_like_tiktoken("IQ== 1\n"));
  CHECK_FALSE(looks_like_tiktoken(""));
  CHECK(looks_like_tiktoken("IQ== 0\r\nIg== 1\n"));
}

}  // namespace
}  // namespace tptrain::tokenizer
