// Contents of files as they were read once, by size and time: where the user takes those for the
// contents (data.trust_times), a run that starts again reads nothing of a corpus that is as it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace tptrain::data {

class KnownFiles {
 public:
  enum class Trust { none, size_and_time };
  /// Of `directory`, in which it keeps a file. What cannot be read there is not known.
  KnownFiles(const std::filesystem::path& directory, Trust trust);

  /// What it held when it was noted; none where it has changed since, or nothing is trusted.
  std::optional<std::string> sha256(const std::filesystem::path& file) const;
  /// It holds this, and has not changed while it was read.
  void note(const std::filesystem::path& file, const std::string& sha256);
  /// For the next run; nothing where nothing is trusted. Throws DataError where it cannot.
  void save() const;

 private:
  struct Entry {
    int64_t size = 0;
    int64_t time_ns = 0;  // of its last change
    uint64_t inode = 0;
    std::string sha256 = {};
  };
  static std::optional<Entry> look_at(const std::filesystem::path& file);

  std::filesystem::path path_;
  Trust trust_;
  std::map<std::string, Entry> entries_;  // by absolute path
};

}  // namespace tptrain::data
