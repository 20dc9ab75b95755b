// Text that comes from elsewhere: made fit for a terminal, told from what it should have been, and
// JSON with Python's words in it.
#include "base/error.h"
#include "base/foreign_file.h"
#include "base/json_tree.h"
#include "base/printable.h"
#include "base/python_json.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

using testing::has;
using testing::message_of;

TEST_CASE("what would act on a terminal is shown as an escape, all other text stays") {
  const std::string text = "gr\xc3\xbc\xc3\x9f, \xe4\xb8\xad, \xf0\x9f\x98\x80 \t\n";
  CHECK(printable(text) == text);
  CHECK(printable_line("a\tb\nOK  c") == "a\\x09b\\nOK  c");
  CHECK(printable("\x1b[31m\r\x07\x7f") == "\\x1b[31m\\x0d\\x07\\x7f");
  CHECK(printable("\xc2\x9b"
                  "31m") == "\\u009b31m");  // C1: another ESC [
  CHECK(printable("\xe2\x80\xae"
                  "x\xe2\x81\xa6") == "\\u202ex\\u2066");  // text turned around
  CHECK(printable("\xe2\x80\xa8") == "\\u2028");
  CHECK(printable("\x9b\xff \xc3") == "\\x9b\\xff \\xc3");                  // no UTF-8
  CHECK(printable("\xed\xa0\x80\xc0\x80") == "\\xed\\xa0\\x80\\xc0\\x80");  // surrogate, overlong
}

TEST_CASE("no message of an error carries control characters of its values") {
  const DataError error(problem("the name is \x1b]0;title\x07")
                            .at("a\nOK   b")
                            .must("be \x9b"
                                  "1m")
                            .remedy("Take \x1b away.\n  then go on"));
  CHECK(std::string(error.what()) ==
        "data error: a\\nOK   b: the name is \\x1b]0;title\\x07: it must be \\x9b1m.\n"
        "  Take \\x1b away.\n  then go on");
}

TEST_CASE("a file that is something else is told by how it begins") {
  const auto message = [](std::string_view text) {
    return message_of<DataError>([&] { refuse_foreign_file(text, "m/f"); });
  };
  CHECK(message("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n") ==
        "data error: m/f: this is a Git LFS pointer, not the file that it stands for.\n"
        "  Run git lfs pull in the folder it was cloned to, or download the file again (hf "
        "download).");
  CHECK(has(message("\xef\xbb\xbf \n<!doctype HTML>"), "a web page"));
  CHECK(has(message("<html lang=\"en\">"), "a web page"));
  CHECK(has(message("Repository not found"), "the hub's answer"));
  CHECK(has(message({"PK\x03\x04", 4}), "a zip archive"));
  CHECK(has(message("\x1f\x8b\x08"), "compressed with gzip"));
  for (const char* fine : {"", "{}", "version 2", "P", "<s> </s>"}) {
    CHECK_NOTHROW(refuse_foreign_file(fine, "f"));
  }
}

TEST_CASE("Python's words in JSON become strings, and come back") {
  CHECK(quote_bare_numbers(R"({"a": NaN, "b": [Infinity, -Infinity], "c": "NaN \" Infinity"})") ==
        R"({"a": "NaN", "b": ["Infinity", "-Infinity"], "c": "NaN \" Infinity"})");
  CHECK(quote_bare_numbers("[-1, null, Nan]") == "[-1, null, Nan]");
  CHECK(bare_numbers_again(quote_bare_numbers("[-Infinity, NaN, \"NaN\"]", "#"), "#") ==
        "[-Infinity, NaN, \"NaN\"]");
}

TEST_CASE("a JSON tree is what nlohmann's parser makes of it, but strict") {
  const std::string text =
      R"( {"a": [1, -2, 3.5, true, null, "x", [], {}], "b": {"c": {"d": [[1], [2]]}}} )";
  CHECK(parse_json_tree(text, "f") == nlohmann::json::parse(text));
  CHECK(parse_json_tree("7", "f") == 7);
  const auto message = [](std::string_view bad) {
    return message_of<DataError>([&] { parse_json_tree(bad, "f", {.max_depth = 2}); });
  };
  CHECK(message(R"({"a": 1, "a": 2})") ==
        "data error: f: JSON object names the key \"a\" twice: it must name each key once.");
  CHECK(has(message("[[[]]]"),
            "f: JSON nested deeper than this format ever is: it must stay "
            "within 2 levels"));
  CHECK(message("[[]]") == "(nothing was thrown)");
  CHECK(has(message("[1,]"), "f: not valid JSON: parse error at line 1, column 4"));
  CHECK(has(message("[1e999]"), "f: not valid JSON"));
  CHECK(has(message({"[]\0x", 4}), "byte 2 is NUL"));
}

TEST_CASE(
    "who watches a JSON tree grow sees what nlohmann's callback sees, and drops what it will") {
  const std::string text = R"({"keep": [{"x": 1}, [2], 3], "drop": 4, "list": [[5], {"y": [6]}]})";
  using Event = nlohmann::json::parse_event_t;
  const auto record = [](std::string& seen) {
    return [&seen](int depth, Event event, nlohmann::json& parsed) {
      seen += std::to_string(depth) + " " + std::to_string(static_cast<int>(event)) + " ";
      if (event == Event::key || event == Event::value) seen += parsed.dump();
      seen += "\n";
      if (event == Event::key) return parsed != "drop";
      if (event == Event::value) return parsed != 3;
      return !(event == Event::array_end && depth == 2);
    };
  };
  std::string ours;
  std::string theirs;
  const nlohmann::json tree = parse_json_tree(text, "f", {.watch = record(ours)});
  CHECK(tree == nlohmann::json::parse(text, record(theirs)));
  CHECK(ours == theirs);
  CHECK(tree == nlohmann::json::parse(R"({"keep": [{"x": 1}], "list": [{"y": [6]}]})"));
}

TEST_CASE("a list of many objects takes time in proportion to it, also when it is watched") {
  // With nlohmann's own callback 300,000 took minutes.
  std::string text = "[{}";
  for (int i = 1; i < 300'000; ++i) text += ",{\"a\":1}";
  size_t seen = 0;
  const auto count = [&](int, nlohmann::json::parse_event_t, nlohmann::json&) {
    return ++seen > 0;
  };
  CHECK(parse_json_tree(text + "]", "f", {.watch = count}).size() == 300'000);
  CHECK(seen > 1'000'000);
}

}  // namespace
}  // namespace tptrain
