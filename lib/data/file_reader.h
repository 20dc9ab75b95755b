// A file front to back, in pieces or in lines, with its SHA-256 on the way; what gzip or zstd
// packed is unpacked. Bounded memory whatever the file holds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/files.h"
#include "data/decompress.h"
#include "data/row_reader.h"

namespace tptrain::data {

class FileReader {
 public:
  enum class Contents { unpacked, as_stored };

  /// Throws DataError where the file cannot be opened; next() where it cannot be read, a packed
  /// stream is damaged or cut off, or unpacks to more than kMostUnpacked times its size.
  explicit FileReader(const std::filesystem::path& path, Contents contents = Contents::unpacked);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  /// Up to 1 MiB, valid until the next call; the end is an empty piece.
  std::string_view next();
  /// SHA-256 of the file as it is stored: call it when next() has given the end. The object is
  /// spent afterwards.
  std::string sha256() { return hash_.hex(); }
  const std::filesystem::path& path() const { return path_; }

  /// Text packs to a third or a tenth. A small file that unpacks to a full disk is no text.
  static constexpr int64_t kMostUnpacked = 500;

 private:
  std::string_view read_stored();
  std::string_view unpack();
  [[noreturn]] void fail(const char* call) const;
  [[noreturn]] void fail_unpacking(const std::string& what) const;

  std::filesystem::path path_;
  std::string piece_;
  Sha256 hash_;
  int descriptor_ = -1;
  std::string_view stored_;  // of piece_, not given or unpacked yet
  std::unique_ptr<Decompressor> decompressor_;
  std::string unpacked_;
  int64_t taken_bytes_ = 0;
  int64_t unpacked_bytes_ = 0;
};

/// Each line is a row, without its line feed. A byte order mark at the beginning of the file is
/// skipped.
class LineReader final : public RowReader {
 public:
  /// A line of more than max_line_bytes is a BadRow.
  LineReader(const std::filesystem::path& path, int64_t max_line_bytes);

  std::optional<std::string_view> next() override;
  int64_t line_number() const override { return line_number_; }
  std::string sha256() override { return reader_.sha256(); }

 private:
  [[noreturn]] void refuse_long_line();

  FileReader reader_;
  int64_t max_line_bytes_;
  int64_t line_number_ = 0;
  std::string_view rest_;  // of the reader's piece
  std::string line_;       // one that goes over a piece's end
};

/// `text` without the byte order mark that it begins with.
std::string_view without_mark(std::string_view text);

}  // namespace tptrain::data
