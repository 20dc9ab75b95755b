// Strict JSON: what nlohmann takes silently is refused.
#include "formats/strict_json.h"

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

std::string refusal(std::string_view text) {
  return message_of<DataError>([&] { formats::parse_strict_json(text, "a.json"); });
}

TEST_CASE("strict JSON gives the value that the text says") {
  const nlohmann::json value = formats::parse_strict_json(R"({"a":[1,{"b":"x"}],"c":{"b":2}})", "");
  CHECK(value["a"][1]["b"] == "x");
  CHECK(value["c"]["b"] == 2);  // the same key in another object is no duplicate
}

TEST_CASE("strict JSON refuses a key given twice, at any depth") {
  CHECK(has(refusal(R"({"a":1,"a":1})"), "a.json: JSON object names the key \"a\" twice"));
  CHECK(has(refusal(R"([{"x":{"b":1,"c":{},"b":2}}])"), "names the key \"b\" twice"));
}

TEST_CASE("strict JSON refuses what is no JSON, naming the place and no raw bytes of the file") {
  CHECK(has(refusal("{\"a\":}"), "a.json: not valid JSON: parse error at line 1, column 6"));
  CHECK(has(refusal(""), "not valid JSON"));
  CHECK(has(refusal("{} x"), "not valid JSON"));
  CHECK(has(refusal("[1e999]"), "not valid JSON"));
  const std::string not_utf8 = refusal("{\"\xff\xfe\":1}");
  CHECK(has(not_utf8, "not valid JSON"));
  CHECK(!has(not_utf8, "\xff"));
}

TEST_CASE("strict JSON refuses deep nesting before it costs anything") {
  CHECK(has(refusal(std::string(100'000, '[')), "JSON nested deeper"));
}

TEST_CASE("strict JSON refuses a NUL, at which nlohmann would stop reading") {
  CHECK(has(refusal(std::string("{}\0 more", 8)), "a.json: not valid JSON: byte 2 is NUL"));
}

}  // namespace
}  // namespace tptrain::testing
