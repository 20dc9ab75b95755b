// tptrain tokenize: lines in, lines out in their order; every refusal with its line and exit code.
// The vocabulary is one of our own.
#include <nlohmann/json.hpp>

#include "support/catch.h"
#include "support/process.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using nlohmann::json;

// Byte-level BPE of a, b, ab and the begin-of-text and end-of-text tokens.
const char* kTokenizerJson = R"({
 "added_tokens": [
  {"id": 7, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true},
  {"id": 8, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}],
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
 "post_processor": {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
  "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
 "decoder": {"type": "ByteLevel"},
 "model": {"type": "BPE", "merges": ["a b"],
  "vocab": {"a": 0, "b": 1, "ab": 2, "<": 3, "s": 4, ">": 5, "/": 6}}})";

struct Folder : TempDir {
  Folder() {
    put("tokenizer.json", kTokenizerJson);
    put("tokenizer_config.json",
        R"({"eos_token": "</s>", "chat_template":
            "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ mark | default('b') }}{% endif %}{% if tools %}{{ 'a' * 1 }}{% endif %}"})");
  }
  /// Standard output, line by line; the exit code must be 0.
  std::vector<json> lines(const std::string& input, const std::string& options = "") const {
    const ProcessResult result = run(input, options);
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return parsed(result.standard_output);
  }
  ProcessResult run(const std::string& input, const std::string& options = "") const {
    put("input", input);
    return tokenize("--tokenizer " + path().string() + " " + options);
  }
  ProcessResult tokenize(const std::string& options) const {
    return run_process({"bash", "-c",
                        std::string(TPTRAIN_BINARY) + " tokenize " + options + " < " +
                            (path() / "input").string()});
  }
  static std::vector<json> parsed(const std::string& output) {
    std::vector<json> rows;
    size_t begin = 0;
    for (size_t end = output.find('\n'); end != output.npos; end = output.find('\n', begin)) {
      rows.push_back(json::parse(output.substr(begin, end - begin)));
      begin = end + 1;
    }
    CHECK(begin == output.size());
    return rows;
  }
};

TEST_CASE("texts become ids and tokens, ids texts, conversations both") {
  const Folder folder;
  using Rows = std::vector<json>;
  CHECK(folder.lines("{\"text\": \"abb\"}\n{\"id\": 7, \"text\": \"a</s>\"}") ==
        Rows{{{"ids", {7, 2, 1}}, {"tokens", {"<s>", "ab", "b"}}},
             {{"ids", {7, 0, 8}}, {"tokens", {"<s>", "a", "</s>"}}}});
  CHECK(folder.lines("{\"text\": \"</s>\"}\r\n", "--no-special --special-as-text") ==
        Rows{{{"ids", {3, 6, 4, 5}}, {"tokens", {"<", "/", "s", ">"}}}});
  CHECK(folder.lines("{\"ids\": [7, 2, 1, 99]}\n{\"ids\": []}\n", "--decode") ==
        Rows{{{"text", "<s>abb"}}, {{"text", ""}}});
  CHECK(folder.lines("{\"ids\": [7, 2, 1]}\n", "--decode --no-special") == Rows{{{"text", "abb"}}});
  const std::string chat = "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}]}\n";
  CHECK(folder.lines(chat, "--chat") ==
        Rows{{{"text", "ab</s>"}, {"ids", {2, 8}}, {"tokens", {"ab", "</s>"}}}});
  CHECK(folder.lines(chat, "--chat --generation-prompt")[0]["text"] == "ab</s>b");
  CHECK(folder.lines(
            chat, "--chat --generation-prompt --chat-variables '{\"mark\": \"a\"}'")[0]["text"] ==
        "ab</s>a");
  CHECK(folder.lines("").empty());
}

TEST_CASE("bytes that are no text are shown as U+FFFD") {
  const Folder folder;
  folder.put("input", "{\"ids\": [65, 255, 195]}\n");
  const ProcessResult decoded = folder.tokenize("--tokenizer bytes --decode");
  CHECK(decoded.standard_output == "{\"text\":\"A\xEF\xBF\xBD\xEF\xBF\xBD\"}\n");
  folder.put("input", "{\"text\": \"\xC3\xA9\"}\n");
  CHECK(folder.tokenize("--tokenizer bytes").standard_output ==
        "{\"ids\":[195,169],\"tokens\":[\"\xEF\xBF\xBD\",\"\xEF\xBF\xBD\"]}\n");
}

TEST_CASE("many lines stay in order with any number of threads") {
  const Folder folder;
  std::string input;
  for (int i = 0; i < 10000; ++i) {
    input += "{\"text\": \"" + std::string(i % 37, 'a') + "b\"}\n";
  }
  const ProcessResult one = folder.run(input, "--threads 1");
  REQUIRE(one.exit_code == 0);
  const std::vector<json> rows = Folder::parsed(one.standard_output);
  REQUIRE(rows.size() == 10000);
  for (int i = 0; i < 10000; i += 997) {
    CHECK(rows[i]["ids"].size() == static_cast<size_t>(1 + std::max(i % 37, 1)));
  }
  CHECK(folder.run(input, "--threads 5").standard_output == one.standard_output);
}

TEST_CASE("a bad line ends the program with its number, those before it are written") {
  const Folder folder;
  std::string good;
  for (int i = 0; i < 5000; ++i) good += "{\"text\": \"ab\"}\n";
  const auto check = [&](const std::string& bad, const std::string& message,
                         const std::string& options = "") {
    const ProcessResult result = folder.run(bad, options);
    INFO(result.output);
    INFO("expected: " << message);
    CHECK(result.exit_code == 3);
    CHECK(has(result.output, message));
    CHECK(result.standard_output.empty());
  };
  check("{\"text\": \"a\"", "data error: standard input:1: not valid JSON");
  check("\n", "data error: standard input:1: not valid JSON");
  check("{\"text\": \"a\", \"text\": \"b\"}",
        "standard input:1: JSON object names the key \"text\"");
  check("{\"text\": \"\xFF\"}", "standard input:1: not valid JSON");
  check("[1]",
        "data error: standard input:1: this line is array: it must be an object with "
        "\"text\".");
  check("{\"txt\": \"a\"}", "standard input:1: this line has no \"text\": it must be an object");
  check("{\"text\": 7}", "data error: standard input:1: \"text\" is number: it must be a string.");
  const std::string of_ids = "it must be a list of ids: integers from 0 to 2,147,483,647.";
  check("{\"ids\": [-1]}", "standard input:1: \"ids\" holds -1: " + of_ids, "--decode");
  check("{\"ids\": [1.5]}", "\"ids\" holds 1.5: " + of_ids, "--decode");
  check("{\"ids\": \"x\"}", "\"ids\" holds string: " + of_ids, "--decode");
  check("{\"messages\": 7}", "standard input:1: chat: messages is number", "--chat");
  check("{\"messages\": [], \"tools\": [1]}", "* of a string and an integer is not built",
        "--chat");

  const ProcessResult late =
      folder.run(good + "{\"text\": 7}\n" + good, "--threads 3 --no-special");
  CHECK(late.exit_code == 3);
  CHECK(has(late.output, "standard input:5001: \"text\" is number"));
  CHECK(Folder::parsed(late.standard_output).size() == 5000);
}

TEST_CASE("the command line and the tokenizer are checked before a line is read") {
  const Folder folder;
  const auto check = [&](const std::string& options, const std::string& message) {
    const ProcessResult result = folder.tokenize(options);
    INFO(result.output);
    INFO("expected: " << message);
    CHECK(result.exit_code == 2);
    CHECK(has(result.output, message));
  };
  folder.put("input", "not read");
  const std::string here = "--tokenizer " + folder.path().string() + " ";
  check("", "--tokenizer is missing: it must name a directory, a file or bytes");
  check("--tokenizer nowhere", "the tokenizer \"nowhere\" does not exist");
  check(here + "--decode --chat", "--decode and --chat are both given");
  check(here + "--decode --special-as-text", "--special-as-text is given with --decode");
  check(here + "--chat --special-as-text", "--special-as-text is given with --chat");
  check(here + "--chat --no-special", "--no-special is given with --chat");
  check(here + "--generation-prompt", "--generation-prompt is given without --chat");
  check(here + "--chat-variables {}", "--chat-variables is given without --chat");
  check(here + "--chat --chat-variables 7", "--chat-variables is number: it must be an object");
  check(here + "--chat --chat-variables '{'", "--chat-variables is not valid JSON");
  check(here + "--threads 0", "--threads is 0: it must be from 1 to 1024");
  check("--tokenizer bytes --chat", "bytes: this tokenizer has no chat template");
  const ProcessResult help = folder.tokenize("--help");
  CHECK(help.exit_code == 0);
  CHECK(has(help.standard_output, "{\"ids\": [...], \"tokens\": [...]}"));
}

}  // namespace
}  // namespace tptrain::testing
