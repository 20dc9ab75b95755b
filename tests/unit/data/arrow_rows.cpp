// Rows of Parquet and Arrow files, written here by the library: the same documents as from lines.
// Built where Arrow is.
#include "data/arrow_rows.h"

#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/io/file.h>
#include <arrow/ipc/writer.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <parquet/arrow/writer.h>

#include <random>

#include "base/error.h"
#include "data/jsonl_rows.h"
#include "data/packing.h"
#include "data/token_store.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

namespace fs = std::filesystem;
using testing::has;
using testing::message_of;
using testing::TempDir;

void require(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}
template <typename T>
T value_of(arrow::Result<T> result) {
  require(result.status());
  return std::move(result).ValueUnsafe();
}

std::shared_ptr<arrow::Array> texts(const std::vector<std::optional<std::string>>& values) {
  arrow::StringBuilder builder;
  for (const auto& value : values) require(value ? builder.Append(*value) : builder.AppendNull());
  return value_of(builder.Finish());
}

std::shared_ptr<arrow::Array> id_lists(const std::vector<std::vector<int32_t>>& lists) {
  auto values = std::make_shared<arrow::Int32Builder>();
  arrow::ListBuilder builder(arrow::default_memory_pool(), values);
  for (const auto& list : lists) {
    require(builder.Append());
    for (const int32_t id : list) require(values->Append(id));
  }
  return value_of(builder.Finish());
}

std::shared_ptr<arrow::Table> table(
    const std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>>& columns) {
  std::vector<std::shared_ptr<arrow::Field>> fields;
  std::vector<std::shared_ptr<arrow::Array>> arrays;
  for (const auto& [name, array] : columns) {
    fields.push_back(arrow::field(name, array->type()));
    arrays.push_back(array);
  }
  return arrow::Table::Make(arrow::schema(fields), arrays);
}

void write_parquet(const arrow::Table& rows, const fs::path& path) {
  const auto out = value_of(arrow::io::FileOutputStream::Open(path.string()));
  require(parquet::arrow::WriteTable(rows, arrow::default_memory_pool(), out, /*chunk_size=*/100));
  require(out->Close());
}

void write_ipc(const arrow::Table& rows, const fs::path& path, bool stream) {
  const auto out = value_of(arrow::io::FileOutputStream::Open(path.string()));
  const auto writer = value_of(stream ? arrow::ipc::MakeStreamWriter(out, rows.schema())
                                      : arrow::ipc::MakeFileWriter(out, rows.schema()));
  require(writer->WriteTable(rows, 100));
  require(writer->Close());
  require(out->Close());
}

std::vector<std::string> rows_of(const fs::path& path, RowLayout layout) {
  const auto rows = open_arrow_rows(path, layout);
  std::vector<std::string> all;
  while (const auto row = rows->next()) {
    CHECK(rows->line_number() == static_cast<int64_t>(all.size()) + 1);
    all.emplace_back(*row);
  }
  return all;
}

PreparedTokens prepare(const TempDir& dir, const fs::path& path, double max_bad_fraction = 0) {
  return prepare_tokens(
      {.sources = {{.path = path.string()}}, .max_bad_fraction = max_bad_fraction},
      *tokenizer::make_tokenizer("bytes"), dir / "tokens", "train");
}

TEST_CASE("a row is the JSON of its columns, whatever wrote the file") {
  const TempDir dir;
  const auto rows = table({{"text", texts({"a\n\"", std::nullopt, "\xc3\xa9"})},
                           {"input_ids", id_lists({{1, 2}, {}, {3}})}});
  const std::vector<std::string> expected = {R"({"text":"a\n\"","input_ids":[1,2]})",
                                             R"({"input_ids":[]})",
                                             "{\"text\":\"\xc3\xa9\",\"input_ids\":[3]}"};
  write_parquet(*rows, dir / "a.parquet");
  CHECK(rows_of(dir / "a.parquet", RowLayout::parquet) == expected);
  write_ipc(*rows, dir / "a.arrow", true);
  CHECK(rows_of(dir / "a.arrow", RowLayout::arrow_stream) == expected);
  write_ipc(*rows, dir / "b.arrow", false);
  CHECK(rows_of(dir / "b.arrow", RowLayout::arrow_file) == expected);
}

TEST_CASE("tables of many row groups give the documents that lines give") {
  const TempDir dir;
  std::vector<std::optional<std::string>> values;
  std::string lines;
  for (int i = 0; i < 1000; ++i) {
    values.push_back("row " + std::to_string(i));
    lines += "{\"text\": \"row " + std::to_string(i) + "\"}\n";
  }
  const auto rows = table({{"text", texts(values)}});
  write_parquet(*rows, dir / "a.parquet");
  write_ipc(*rows, dir / "a.arrow", true);
  const PreparedTokens of_lines = prepare(dir, dir.put("a.jsonl", lines));
  for (const char* name : {"a.parquet", "a.arrow"}) {
    const PreparedTokens prepared = prepare(dir, dir / name);
    CHECK(prepared.documents == 1000);
    const formats::TokenFile a = open_tokens(prepared);
    const formats::TokenFile b = open_tokens(of_lines);
    CHECK(a.header().document_ends == b.header().document_ends);
    CHECK(a.header().bin_sha256 == b.header().bin_sha256);
  }
}

TEST_CASE("a folder as `datasets` saves it gives its rows") {
  const TempDir dir;
  fs::create_directories(dir / "set");
  write_ipc(*table({{"text", texts({"a", "b"})}}), dir / "set/data-00000-of-00001.arrow", true);
  dir.put("set/dataset_info.json", "{\n \"features\": {}\n}");
  dir.put("set/state.json", "{\n \"_fingerprint\": \"x\"\n}");
  const PreparedTokens prepared = prepare(dir, dir / "set");
  CHECK(prepared.documents == 2);
  CHECK(has(prepared.notes.at(0), "dataset_info.json"));
}

TEST_CASE("a row that is wrong is refused by its number, or left out as far as that is tolerated") {
  const TempDir dir;
  write_parquet(*table({{"text", texts({"a", std::nullopt, "b"})}}), dir / "a.parquet");
  CHECK(has(message_of<DataError>([&] { prepare(dir, dir / "a.parquet"); }),
            "a.parquet:2: there is neither \"text\" nor \"input_ids\""));
  CHECK(prepare(dir, dir / "a.parquet", 0.5).documents == 2);
}

TEST_CASE("damaged files are refused or read, and nothing else") {
  const TempDir dir;
  std::vector<std::optional<std::string>> values;
  for (int i = 0; i < 300; ++i) values.push_back("row " + std::to_string(i * i));
  const auto rows =
      table({{"text", texts(values)},
             {"input_ids", id_lists(std::vector<std::vector<int32_t>>(300, {1, 2, 3}))}});
  write_parquet(*rows, dir / "parquet");
  write_ipc(*rows, dir / "stream", true);
  write_ipc(*rows, dir / "file", false);
  std::mt19937_64 random(20260604);
  for (const auto& [name, layout] :
       std::vector<std::pair<std::string, RowLayout>>{{"parquet", RowLayout::parquet},
                                                      {"stream", RowLayout::arrow_stream},
                                                      {"file", RowLayout::arrow_file}}) {
    const std::string whole = testing::contents_of(dir / name);
    for (int round = 0; round < 150; ++round) {
      std::string damaged = whole;
      if (round % 3 == 0) {
        damaged.resize(random() % damaged.size());
      } else {
        for (int n = 1 + static_cast<int>(random() % 4); n > 0; --n)
          damaged[random() % damaged.size()] = static_cast<char>(random());
      }
      const fs::path path = dir.put("damaged", damaged);
      try {
        const auto reader = open_arrow_rows(path, layout);
        while (true) {
          try {
            if (!reader->next()) break;
          } catch (const BadRow&) {
            // A row of it.
          }
        }
      } catch (const DataError& error) {
        REQUIRE(has(error.what(), "the file cannot be read"));
      }
    }
  }
}

}  // namespace
}  // namespace tptrain::data
