// A file front to back, in pieces or in lines, with its SHA-256 on the way. Bounded memory whatever
// the file holds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/files.h"

namespace tptrain::data {

class FileReader {
 public:
  /// Throws DataError where the file cannot be opened; next() where it cannot be read.
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  /// Up to 1 MiB, valid until the next call; the end is an empty piece.
  std::string_view next();
  /// SHA-256 of what was read. The object is spent afterwards.
  std::string sha256() { return hash_.hex(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  [[noreturn]] void fail(const char* call) const;

  std::filesystem::path path_;
  std::string piece_;
  Sha256 hash_;
  int descriptor_ = -1;
};

class LineReader {
 public:
  /// A line of more than max_line_bytes is an error.
  LineReader(const std::filesystem::path& path, int64_t max_line_bytes);

  /// The next line without its line feed, valid until the next call; none at the end. A byte order
  /// mark at the beginning of the file is skipped. Throws DataError with file:line where the line
  /// is too long.
  std::optional<std::string_view> next();
  /// Of the line that next() gave last, from 1.
  int64_t line_number() const { return line_number_; }
  /// Of the whole file: call it when next() has given none.
  std::string sha256() { return reader_.sha256(); }

 private:
  void check_length(size_t bytes) const;

  FileReader reader_;
  int64_t max_line_bytes_;
  int64_t line_number_ = 0;
  std::string_view rest_;  // of the reader's piece
  std::string line_;       // one that goes over a piece's end
};

}  // namespace tptrain::data
