// A file that grows record by record and holds whole records only. Private to this folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

namespace tptrain::metrics {

class AppendedFile {
 public:
  /// Opens for appending, makes it where it is missing. Throws DataError where that fails,
  /// ConfigError at a FIFO.
  explicit AppendedFile(const std::filesystem::path& path);
  ~AppendedFile();
  AppendedFile(const AppendedFile&) = delete;
  AppendedFile& operator=(const AppendedFile&) = delete;

  /// One write(2) where the system takes it whole: who follows the file sees whole records. Throws
  /// DataError; what stands of the record is taken back, at the latest by the next call.
  void append(std::string_view record);
  const std::filesystem::path& path() const { return path_; }

 private:
  int cut_at(int64_t end) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::optional<int64_t> whole_until_;  // beyond it stands a part of a record
};

}  // namespace tptrain::metrics
