// The folder that files are fetched into. Nothing is written outside of it: below it no link is
// followed, and what is there as something else than a file or a folder is refused. A file is
// written in a folder of unfinished ones and gets its name when it is whole and on the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace tptrain::hub {

inline constexpr const char* kStagingFolder = ".tptrain-fetch";

/// Closes on every way out.
class Handle {
 public:
  Handle() = default;
  explicit Handle(int number) : number_(number) {}
  ~Handle();
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  int number() const { return number_; }

 private:
  int number_ = -1;
};

class OutFolder {
 public:
  /// Makes it where it is missing, itself by links too. Throws ConfigError where it cannot be
  /// written to, or another process fetches into it.
  explicit OutFolder(const std::filesystem::path& path);
  /// Removes the folder of unfinished files where nothing is left in it.
  ~OutFolder();
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// To read, where there is such a file. Throws ConfigError where something else has the name.
  std::optional<Handle> open(const std::string& file) const;
  /// To read and write; what an earlier attempt left is in it.
  Handle open_unfinished(const std::string& name) const;
  /// Makes its contents durable, then gives it its name, in place of what is there.
  void finish(const Handle& unfinished, const std::string& name, const std::string& file) const;

 private:
  Handle parent_of(const std::string& file, bool make) const;

  std::filesystem::path path_;
  Handle root_;
  Handle staging_;
};

/// Size of an open file; all bytes of it to `sink`, from its beginning; bytes behind its end.
int64_t size_of(const Handle& file, const std::string& name);
void truncate(const Handle& file, const std::string& name);
void append(const Handle& file, const std::string& name, std::string_view bytes);
/// One piece from `at` on into `buffer`; its length, 0 at the end.
size_t read_at(const Handle& file, const std::string& name, int64_t at, void* buffer, size_t count);

}  // namespace tptrain::hub
