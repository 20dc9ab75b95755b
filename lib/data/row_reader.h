// The rows of a file one by one, as the JSON text that each is; what they say is jsonl_rows.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace tptrain::data {

/// What is wrong with one row alone: whoever reads rows can go on to the next.
class BadRow : public DataError {
 public:
  using DataError::DataError;
};

class RowReader {
 public:
  virtual ~RowReader() = default;
  /// The next row, valid until the next call; none at the end. Throws BadRow with file:line where
  /// it is too long, DataError where the file is not what it is read as.
  virtual std::optional<std::string_view> next() = 0;
  /// Where the row that next() gave last begins, from 1.
  virtual int64_t line_number() const = 0;
  /// Of the whole file: call it when next() has given none.
  virtual std::string sha256() = 0;
};

/// A row a line; the elements of one JSON array, wherever their lines end; or rows of a table
/// (arrow_rows.h).
enum class RowLayout { lines, array, parquet, arrow_file, arrow_stream };

std::unique_ptr<RowReader> open_rows(const std::filesystem::path& path, RowLayout layout);

}  // namespace tptrain::data
