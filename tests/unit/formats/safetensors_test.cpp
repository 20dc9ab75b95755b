// safetensors files: what is written is read back; every rule of the format, broken alone, is
// refused with the file, the tensor and the rule.
#include "formats/safetensors.h"

#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using formats::Dtype;
using formats::SafetensorsFile;
using formats::SafetensorsWriter;

std::string file_of(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes.append(header).append(data);
}

std::string refusal_of_bytes(const std::string& bytes) {
  const TempDir dir;
  const auto path = dir.put("x.safetensors", bytes);
  return message_of<DataError>([&] { SafetensorsFile file(path); });
}

std::string refusal(std::string_view header, std::string_view data = "") {
  return refusal_of_bytes(file_of(header, data));
}

TEST_CASE("a safetensors file holds what was written, in pieces of any size") {
  const TempDir dir;
  std::vector<float> values(6);
  std::iota(values.begin(), values.end(), 1.0f);
  const std::string words = "abc";
  SafetensorsWriter writer(dir / "a.safetensors",
                           {{.name = "z", .dtype = Dtype::f32, .shape = {2, 3}},
                            {.name = "a", .dtype = Dtype::u8, .shape = {3}},
                            {.name = "none", .dtype = Dtype::bf16, .shape = {0, 4}},
                            {.name = "scalar", .dtype = Dtype::i64, .shape = {}}},
                           {{"format", "pt"}});
  writer.write(values.data(), 10);
  writer.write(reinterpret_cast<const char*>(values.data()) + 10, 14);
  writer.write(words.data(), 3);
  const int64_t scalar = 7;
  writer.write(&scalar, sizeof scalar);
  const DurableFile::Written written = writer.commit();

  const std::string bytes = contents_of(dir / "a.safetensors");
  CHECK(written.size_bytes == static_cast<int64_t>(bytes.size()));
  CHECK(written.sha256 == sha256_hex(bytes));
  const SafetensorsFile file(dir / "a.safetensors");
  REQUIRE(file.entries().size() == 4);
  CHECK(file.entries()[0].name == "z");  // the order in the file, not of the alphabet
  CHECK(file.metadata().at("format") == "pt");
  const auto* z = file.find("z");
  REQUIRE(z != nullptr);
  CHECK(z->shape == std::vector<int64_t>{2, 3});
  CHECK(std::memcmp(file.bytes(*z).data(), values.data(), 24) == 0);
  CHECK(reinterpret_cast<uintptr_t>(file.bytes(*z).data()) % 8 == 0);  // aligned in the map
  CHECK(std::memcmp(file.bytes(*file.find("a")).data(), "abc", 3) == 0);
  CHECK(file.find("scalar")->size_bytes == 8);
  CHECK(file.find("absent") == nullptr);
}

TEST_CASE("equal tensors give equal bytes, and their number is known beforehand") {
  const TempDir dir;
  const std::vector<formats::SafetensorsEntry> entries{
      {.name = "b", .dtype = Dtype::u8, .shape = {2}},
      {.name = "a", .dtype = Dtype::u8, .shape = {1}}};
  for (const char* name : {"1", "2"}) {
    SafetensorsWriter writer(dir / name, entries);
    writer.write("xyz", 3);
    CHECK(writer.commit().size_bytes == SafetensorsWriter::file_bytes(entries));
  }
  CHECK(contents_of(dir / "1") == contents_of(dir / "2"));
  CHECK(contents_of(dir / "1").substr(8) ==
        R"({"a":{"data_offsets":[2,3],"dtype":"U8","shape":[1]},)"
        R"("b":{"data_offsets":[0,2],"dtype":"U8","shape":[2]}})"
        "       xyz");  // 7 spaces: 105 bytes of header are padded to 112
}

TEST_CASE("a file without tensors is a file") {
  const TempDir dir;
  SafetensorsWriter(dir / "none", {}).commit();
  CHECK(SafetensorsFile(dir / "none").entries().empty());
}

TEST_CASE("the writer refuses what no reader could read") {
  const TempDir dir;
  const auto refused = [&](std::vector<formats::SafetensorsEntry> entries) {
    static int number = 0;
    return message_of<InternalError>(
        [&] { SafetensorsWriter writer(dir / std::to_string(number++), std::move(entries)); });
  };
  CHECK(has(refused({{.name = "a", .shape = {1}}, {.name = "a", .shape = {1}}}), "given twice"));
  CHECK(has(refused({{.name = "__metadata__", .shape = {1}}}), "reserved"));
  CHECK(has(refused({{.name = "a", .shape = {-1}}}), "no size in bytes"));
  CHECK(has(refused({{.name = "a", .shape = {int64_t{1} << 62, 4}}}), "no size in bytes"));
  CHECK(has(refused({{.name = "\xff", .shape = {1}}}), "not UTF-8"));

  SafetensorsWriter writer(dir / "short", {{.name = "a", .dtype = Dtype::u8, .shape = {4}}});
  writer.write("abc", 3);
  CHECK(has(message_of<InternalError>([&] { writer.write("de", 2); }), "awaits 1"));
  CHECK(has(message_of<InternalError>([&] { writer.commit(); }), "1 bytes missing"));
  CHECK(has(message_of<CheckpointError>([&] { SafetensorsWriter again(dir / "short", {}); }),
            "never overwritten"));
}

TEST_CASE("the reader refuses broken headers") {
  CHECK(has(refusal_of_bytes("1234567"), "the file has 7 bytes"));
  CHECK(has(refusal_of_bytes(std::string("\x01\0\0\0\0\0\0\x10", 8) + "{}"),
            "header length is 11529"));
  CHECK(has(refusal_of_bytes(std::string("\x09\0\0\0\0\0\0\0", 8) + "{}"), "it is truncated"));
  CHECK(has(refusal("[]"), "begin with '{'"));
  CHECK(has(refusal(" {}"), "begin with '{'"));
  CHECK(has(refusal(""), "begin with '{'"));
  CHECK(has(refusal("{\"a\":"), "header: not valid JSON"));
  CHECK(has(refusal(R"({"a":{},"a":{}})"), "lacks a field"));
  CHECK(has(refusal(R"({"__metadata__":{"a":1}})"), "must be an object of texts"));
}

TEST_CASE("the reader refuses tensors that are not as the format wants them") {
  CHECK(has(refusal(R"({"a":3})"), "tensor \"a\" is no object"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[]}})"), "lacks a field"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":1}})"),
            "unknown field \"x\""));
  CHECK(has(refusal(R"({"a":{"dtype":"F12","shape":[],"data_offsets":[0,1]}})", "x"),
            "tensor \"a\" has the unknown dtype \"F12\": it must be one of BOOL, U8"));
  CHECK(has(refusal(R"({"a":{"dtype":8,"shape":[],"data_offsets":[0,1]}})", "x"),
            "has a dtype that is a number"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", "x"),
            "shape that is no list"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "x"), "no size"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", "x"), "no size"));
  CHECK(has(
      refusal(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", "x"),
      "no size"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "x"), "no pair"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x"),
            "[1, 0]: it must rise"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "x"),
            "may be truncated"));
  CHECK(has(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1]}})", "x"),
            "1 bytes by data_offsets, 4 by F32"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})"),
            "whose size overflows"));
}

TEST_CASE("the reader refuses keys given twice, and what JSON readers disagree on") {
  const std::string a = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  CHECK(has(refusal("{" + a + "," + a + "}", "x"), "the header names the tensor \"a\" twice"));
  CHECK(has(refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}})", "x"),
            "names the field dtype twice"));
  CHECK(has(refusal(R"({"__metadata__":{},"__metadata__":{}})"), "names __metadata__ twice"));
  CHECK(has(refusal(R"({"__metadata__":{"k":"1","k":"2"}})"), "__metadata__ names \"k\" twice"));
  CHECK(has(refusal(R"({"__metadata__":null})"), "must be an object of texts"));
  CHECK(has(refusal(R"({"__metadata__":{"k":{}}})"), "must be an object of texts"));
  // nlohmann's parser stops at a NUL as at the end of the text.
  CHECK(has(refusal(std::string("{}\0garbage", 10)), "header: not valid JSON: byte 2 is NUL"));
  CHECK(has(refusal("{} {}"), "not valid JSON"));
  CHECK(has(refusal("{\"a\xff\":{}}"), "not valid JSON"));
  CHECK(has(refusal("\xef\xbb\xbf{}"), "begin with '{'"));
  CHECK(has(refusal("{/**/}"), "not valid JSON"));
  CHECK(refusal("{" + a + "}   ", "x") == "(nothing was thrown)");
}

TEST_CASE("the newer types of the format are known, with their sizes") {
  const auto of = [](const std::string& dtype, int elements, int bytes) {
    return refusal("{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + std::to_string(elements) +
                       "],\"data_offsets\":[0," + std::to_string(bytes) + "]}}",
                   std::string(static_cast<size_t>(bytes), 'x'));
  };
  for (const auto& [dtype, bytes] : std::vector<std::pair<std::string, int>>{{"F4", 4},
                                                                             {"F6_E2M3", 6},
                                                                             {"F6_E3M2", 6},
                                                                             {"F8_E8M0", 8},
                                                                             {"F8_E4M3", 8},
                                                                             {"F8_E5M2", 8},
                                                                             {"F8_E4M3FNUZ", 8},
                                                                             {"C64", 64},
                                                                             {"F8_E5M2FNUZ", 8}}) {
    INFO(dtype);
    CHECK(of(dtype, 8, bytes) == "(nothing was thrown)");
    CHECK(has(of(dtype, 8, bytes + 1), "have the same number of bytes by both"));
  }
  CHECK(has(of("F4", 3, 2), "not a whole number of bytes"));
}

TEST_CASE("links are followed, and broken ones are told apart") {
  const TempDir dir;
  dir.put("blobs/1234", file_of("{}", ""));
  std::filesystem::create_directories(dir / "snapshots/x");
  const auto link = [&](const char* target, const char* name) {
    std::filesystem::create_symlink(target, dir / "snapshots/x" / name);
    return message_of<DataError>([&] { SafetensorsFile file(dir / "snapshots/x" / name); });
  };
  CHECK(link("../../blobs/1234", "model.safetensors") == "(nothing was thrown)");
  CHECK(has(link("../../blobs/5678", "gone.safetensors"),
            "this symbolic link points to ../../blobs/5678, which does not exist: it must lead to "
            "a file.\n  A link of the hub's cache needs the folder blobs/ beside snapshots/"));
  CHECK(has(link("circle.safetensors", "circle.safetensors"),
            "this symbolic link leads in a circle: it must lead to a file"));
  CHECK(has(link("../../blobs", "dir.safetensors"), "this is a directory"));
}

TEST_CASE("what was released can be read again") {
  const TempDir dir;
  SafetensorsWriter writer(dir / "a", {{.name = "a", .dtype = Dtype::u8, .shape = {20'000}}});
  const std::string bytes(20'000, 'q');
  writer.write(bytes.data(), bytes.size());
  writer.commit();
  const SafetensorsFile file(dir / "a");
  const auto span = file.bytes(*file.find("a"));
  file.release(span);
  file.release(span.subspan(0, 0));
  CHECK(std::memcmp(span.data(), bytes.data(), bytes.size()) == 0);
  CHECK(file.size_bytes() == static_cast<int64_t>(std::filesystem::file_size(dir / "a")));
}

TEST_CASE("the reader refuses holes, overlaps and trailing bytes") {
  const auto two = [](int begin_b, int end_b) {
    return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[)" +
           std::to_string(end_b - begin_b) + "],\"data_offsets\":[" + std::to_string(begin_b) +
           "," + std::to_string(end_b) + "]}}";
  };
  CHECK(has(refusal(two(3, 4), "abcd"),
            "tensor \"b\" begins at byte 3 of the data: a hole lies before it"));
  CHECK(
      has(refusal(two(1, 3), "abc"), "it overlaps the tensor before it: it must begin at byte 2"));
  CHECK(has(refusal(two(2, 3), "abcd"), "end with its last tensor"));
  CHECK(refusal(two(2, 3), "abc") == "(nothing was thrown)");
}

TEST_CASE("a file cut anywhere is refused") {
  const TempDir dir;
  SafetensorsWriter writer(dir / "a", {{.name = "a", .dtype = Dtype::u8, .shape = {5}}});
  writer.write("abcde", 5);
  writer.commit();
  const std::string bytes = contents_of(dir / "a");
  for (size_t length = 0; length < bytes.size(); ++length) {
    INFO("cut to " << length << " bytes");
    CHECK(refusal_of_bytes(bytes.substr(0, length)) != "(nothing was thrown)");
  }
}

TEST_CASE("a missing file is named") {
  const TempDir dir;
  CHECK(has(message_of<DataError>([&] { SafetensorsFile file(dir / "gone.safetensors"); }),
            "gone.safetensors"));
}

}  // namespace
}  // namespace tptrain::testing
