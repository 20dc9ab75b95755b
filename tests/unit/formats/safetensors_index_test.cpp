// model.safetensors.index.json: what it may say, and each rule broken alone.
#include "formats/safetensors_index.h"

#include <string>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using formats::parse_safetensors_index;
using namespace std::string_literals;

std::string refusal(const std::string& text) {
  return message_of<DataError>([&] { parse_safetensors_index(text, "dir/index.json"); });
}

std::string refusal_of_name(const std::string& name) {
  return refusal("{\"weight_map\": {\"a\": \"" + name + "\"}}");
}

TEST_CASE("an index says which file holds which tensor") {
  const auto index = parse_safetensors_index(
      R"({"metadata": {"total_size": 12, "more": [{"a": 1}]}, "other": null, "weight_map":
          {"z": "m-2.safetensors", "a": "m-1.safetensors", "b": "m-2.safetensors"}})",
      "");
  CHECK(index.files == std::vector<std::string>{"m-2.safetensors", "m-1.safetensors"});
  REQUIRE(index.rows.size() == 3);
  CHECK(index.rows[0].tensor == "a");
  CHECK(index.rows[0].file == 1);
  CHECK(index.rows[2].tensor == "z");
  CHECK(index.total_size == 12);
  CHECK_FALSE(parse_safetensors_index(
                  R"({"metadata":{"total_size":1.5e9},"weight_map":{"a":"a.safetensors"}})", "")
                  .total_size.has_value());
}

TEST_CASE("what is written is read back, in transformers' form") {
  const std::string text =
      formats::safetensors_index_text({{"b", "y.safetensors"}, {"a", "x.safetensors"}}, 24, 6);
  CHECK(
      text ==
      "{\n  \"metadata\": {\n    \"total_parameters\": 6,\n    \"total_size\": 24\n  },\n"
      "  \"weight_map\": {\n    \"a\": \"x.safetensors\",\n    \"b\": \"y.safetensors\"\n  }\n}\n");
  CHECK(parse_safetensors_index(text, "").rows.size() == 2);
}

TEST_CASE("a file of another directory, or none, is refused") {
  for (const char* name : {"../m.safetensors", "/etc/m.safetensors", "sub/m.safetensors",
                           "..\\\\m.safetensors", "..safetensors", "C:\\\\m.safetensors"}) {
    INFO(name);
    CHECK(has(refusal_of_name(name),
              "leads to another directory: it must name a *.safetensors file of the same "
              "directory"));
  }
  CHECK(has(refusal_of_name(""),
            "data error: dir/index.json: weight_map says that tensor \"a\" is in \"\", which is "
            "empty"));
  CHECK(has(refusal_of_name("m.safetensors\\n"), "has a control character"));
  CHECK(has(refusal_of_name("m\\u0000.safetensors"), "has a control character"));
  CHECK(has(refusal_of_name("m.bin"), "is no *.safetensors file"));
  CHECK(has(refusal_of_name(".safetensors"), "is no *.safetensors file"));
  CHECK(has(refusal_of_name("."), "is no *.safetensors file"));
  CHECK(has(refusal_of_name(std::string(300, 'm') + ".safetensors"), "has 312 bytes"));
}

TEST_CASE("an index that is none is refused") {
  CHECK(has(refusal(""), "not valid JSON"));
  CHECK(has(refusal("{\"weight_map\":{}"), "not valid JSON"));
  CHECK(has(refusal("{\"weight_map\":{\"a\":\"a.safetensors\"}}\0{"s), "is NUL"));
  CHECK(has(refusal("[]"), "it is no JSON object"));
  CHECK(has(refusal("3"), "it is no JSON object"));
  CHECK(has(refusal("\"a\""), "it is no JSON object"));
  CHECK(has(refusal("{}"), "it has no weight_map: it must say which file holds which tensor"));
  CHECK(has(refusal(R"({"weight_map": {}})"), "its weight_map is empty"));
  CHECK(has(refusal(R"({"weight_map": []})"), "its weight_map is a list: it must be an object"));
  CHECK(has(refusal(R"({"weight_map": 7})"), "its weight_map is a number"));
  CHECK(has(refusal(R"({"weight_map": "a"})"), "its weight_map is a text"));
  CHECK(has(refusal(R"({"weight_map": null})"), "its weight_map is null"));
  CHECK(has(refusal(R"({"weight_map": {"a": 1}})"),
            "weight_map says of tensor \"a\" a number: it must name a file"));
  CHECK(has(refusal(R"({"weight_map": {"a": {}}})"), "says of tensor \"a\" an object"));
  CHECK(has(refusal(R"({"weight_map": {"a": []}})"), "says of tensor \"a\" a list"));
  CHECK(has(refusal(R"({"weight_map": {"a": true}})"), "says of tensor \"a\" a boolean"));
  CHECK(has(refusal(R"({"weight_map": {"a": -1}})"), "says of tensor \"a\" a negative number"));
  CHECK(has(refusal(R"({"weight_map": {"a":"x.safetensors","a":"x.safetensors"}})"),
            "weight_map names the tensor \"a\" twice"));
  CHECK(has(refusal(R"({"weight_map": {"a":"x.safetensors"},"weight_map":{}})"),
            "it names weight_map twice"));
  CHECK(has(refusal("{\"x\":" + std::string(100, '[')), "stay within 64 levels"));
}

TEST_CASE("more files than their names can count are refused") {
  std::string text = "{\"weight_map\":{";
  for (int i = 0; i <= 99'999; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"" + std::to_string(i) +
            ".safetensors\"";
  }
  CHECK(has(refusal(text + "}}"), "names more than 99999 files"));
}

}  // namespace
}  // namespace tptrain::testing
