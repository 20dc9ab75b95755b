#include "data/arrow_rows.h"

#include <arrow/array.h>
#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/properties.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/interruption.h"
#include "base/text.h"
#include "data/jsonl_rows.h"

namespace tptrain::data {

namespace {

using nlohmann::ordered_json;

constexpr int64_t kRowsAtOnce = 256;
constexpr int64_t kBufferBytes = int64_t{1} << 20;  // of a column's stream

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw DataError(problem(cat("the file cannot be read (", what, ")"))
                      .at(path.string())
                      .remedy("Is it complete? Make it again."));
}

template <typename T>
T value_of(arrow::Result<T> result, const std::filesystem::path& path) {
  if (!result.ok()) fail(path, result.status().ToString());
  return std::move(result).ValueUnsafe();
}

bool is_readable(const arrow::DataType& type) {
  switch (type.id()) {
    case arrow::Type::BINARY:
    case arrow::Type::LARGE_BINARY:
    case arrow::Type::BINARY_VIEW:
    case arrow::Type::FIXED_SIZE_BINARY:
      return false;
    default:
      return true;
  }
}

ordered_json json_of(const arrow::Array& array, int64_t row);

ordered_json list_of(const arrow::Array& values, int64_t begin, int64_t end) {
  ordered_json list = ordered_json::array();
  for (int64_t i = begin; i < end; ++i) list.push_back(json_of(values, i));
  return list;
}

ordered_json struct_of(const arrow::StructArray& array, int64_t row) {
  ordered_json object = ordered_json::object();
  for (int i = 0; i < array.num_fields(); ++i) {
    const std::string& name = array.struct_type()->field(i)->name();
    const arrow::Array& field = *array.field(i);
    // All rows of a column have the same fields: what one does not have is null there.
    if (field.IsNull(row) && name != "content") continue;
    object[name] = json_of(field, row);
  }
  return object;
}

template <typename Array>
ordered_json plain(const arrow::Array& array, int64_t row) {
  return static_cast<const Array&>(array).Value(row);
}

template <typename Array>
ordered_json text(const arrow::Array& array, int64_t row) {
  return std::string(static_cast<const Array&>(array).GetView(row));
}

ordered_json json_of(const arrow::Array& array, int64_t row) {
  if (array.IsNull(row)) return nullptr;
  using arrow::Type;
  switch (array.type_id()) {
    case Type::BOOL:
      return plain<arrow::BooleanArray>(array, row);
    case Type::INT8:
      return plain<arrow::Int8Array>(array, row);
    case Type::INT16:
      return plain<arrow::Int16Array>(array, row);
    case Type::INT32:
      return plain<arrow::Int32Array>(array, row);
    case Type::INT64:
      return plain<arrow::Int64Array>(array, row);
    case Type::UINT8:
      return plain<arrow::UInt8Array>(array, row);
    case Type::UINT16:
      return plain<arrow::UInt16Array>(array, row);
    case Type::UINT32:
      return plain<arrow::UInt32Array>(array, row);
    case Type::UINT64:
      return plain<arrow::UInt64Array>(array, row);
    case Type::FLOAT:
      return plain<arrow::FloatArray>(array, row);
    case Type::DOUBLE:
      return plain<arrow::DoubleArray>(array, row);
    case Type::STRING:
      return text<arrow::StringArray>(array, row);
    case Type::LARGE_STRING:
      return text<arrow::LargeStringArray>(array, row);
    case Type::STRING_VIEW:
      return text<arrow::StringViewArray>(array, row);
    case Type::LIST: {
      const auto& list = static_cast<const arrow::ListArray&>(array);
      return list_of(*list.values(), list.value_offset(row), list.value_offset(row + 1));
    }
    case Type::LARGE_LIST: {
      const auto& list = static_cast<const arrow::LargeListArray&>(array);
      return list_of(*list.values(), list.value_offset(row), list.value_offset(row + 1));
    }
    case Type::FIXED_SIZE_LIST: {
      const auto& list = static_cast<const arrow::FixedSizeListArray&>(array);
      return list_of(*list.values(), list.value_offset(row), list.value_offset(row + 1));
    }
    case Type::STRUCT:
      return struct_of(static_cast<const arrow::StructArray&>(array), row);
    case Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return json_of(*coded.dictionary(), coded.GetValueIndex(row));
    }
    default:
      return cat("<", array.type()->ToString(), ">");  // a date, a decimal: no row needs it
  }
}

class ArrowReader final : public RowReader {
 public:
  ArrowReader(const std::filesystem::path& path, RowLayout layout) : path_(path) {
    guarded([&] {
      if (layout == RowLayout::parquet) {
        open_parquet();
      } else if (layout == RowLayout::arrow_stream) {
        batches_ = value_of(arrow::ipc::RecordBatchStreamReader::Open(file()), path_);
      } else {
        ipc_file_ = value_of(arrow::ipc::RecordBatchFileReader::Open(file()), path_);
      }
    });
  }

  std::optional<std::string_view> next() override {
    while (!batch_ || at_ == batch_->num_rows()) {
      guarded([&] { batch_ = next_batch(); });
      if (!batch_) return std::nullopt;
      at_ = 0;
    }
    ++row_;
    ordered_json object = ordered_json::object();
    for (int i = 0; i < batch_->num_columns(); ++i) {
      const arrow::Array& column = *batch_->column(i);
      if (column.IsNull(at_) || !is_readable(*column.type())) continue;
      object[batch_->column_name(i)] = json_of(column, at_);
    }
    ++at_;
    // Text that is no UTF-8 is for the parser to refuse, which names the row: it must stay wrong.
    try {
      text_ = object.dump();
    } catch (const ordered_json::type_error&) {
      text_ = "\xff";
    }
    if (static_cast<int64_t>(text_.size()) <= kMaxLineBytes) return text_;
    throw BadRow(problem(cat("the row is longer than ", human_bytes(kMaxLineBytes)))
                     .at(cat(path_.string(), ":", row_))
                     .must(cat("have at most ", with_thousands(kMaxLineBytes), " bytes as JSON"))
                     .remedy("Cut the document into several rows."));
  }

  int64_t line_number() const override { return row_; }
  std::string sha256() override { return sha256_file(path_, FailAs::data_error); }

 private:
  std::shared_ptr<arrow::io::ReadableFile> file() {
    return value_of(arrow::io::ReadableFile::Open(path_.string()), path_);
  }

  void open_parquet() {
    // Column by column through a buffer: a row group may be larger than the memory.
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();
    properties.set_buffer_size(kBufferBytes);
    parquet::arrow::FileReaderBuilder builder;
    const arrow::Status opened = builder.Open(file(), properties);
    if (!opened.ok()) fail(path_, opened.ToString());
    parquet::ArrowReaderProperties arrow_properties;
    arrow_properties.set_batch_size(kRowsAtOnce);
    arrow_properties.set_pre_buffer(false);
    builder.properties(arrow_properties);
    const arrow::Status built = builder.Build(&parquet_);
    if (!built.ok()) fail(path_, built.ToString());
    batches_ = value_of(parquet_->GetRecordBatchReader(), path_);
  }

  std::shared_ptr<arrow::RecordBatch> next_batch() {
    std::shared_ptr<arrow::RecordBatch> batch;
    if (ipc_file_) {
      if (ipc_batch_ == ipc_file_->num_record_batches()) return nullptr;
      batch = value_of(ipc_file_->ReadRecordBatch(ipc_batch_++), path_);
    } else {
      const arrow::Status read = batches_->ReadNext(&batch);
      if (!read.ok()) fail(path_, read.ToString());
    }
    if (!batch) return nullptr;
    // What an IPC file says of its own offsets is not trusted; those of Parquet are made here, and
    // text that is no UTF-8 is a row's affair.
    const arrow::Status valid = parquet_ ? batch->Validate() : batch->ValidateFull();
    if (!valid.ok()) fail(path_, valid.ToString());
    interruption_point();
    return batch;
  }

  /// The library throws of its own, and runs out of memory where a damaged file asks for it.
  template <typename Call>
  void guarded(const Call& call) {
    try {
      call();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      fail(path_, error.what());
    }
  }

  std::filesystem::path path_;
  std::unique_ptr<parquet::arrow::FileReader> parquet_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> ipc_file_;
  int ipc_batch_ = 0;
  std::shared_ptr<arrow::RecordBatch> batch_;
  int64_t at_ = 0;
  int64_t row_ = 0;
  std::string text_;
};

}  // namespace

bool reads_arrow() { return true; }

std::unique_ptr<RowReader> open_arrow_rows(const std::filesystem::path& path, RowLayout layout) {
  return std::make_unique<ArrowReader>(path, layout);
}

}  // namespace tptrain::data
