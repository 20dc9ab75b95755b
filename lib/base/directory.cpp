#include "base/directory.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/text.h"

namespace tptrain {

namespace fs = std::filesystem;

namespace {

std::vector<fs::path> list(const fs::path& directory, std::error_code& error) {
  std::vector<fs::path> paths;
  fs::directory_iterator entry(directory, error);
  // A signal is no reason, on the file systems where it can end an open.
  while (error == std::errc::interrupted) entry = fs::directory_iterator(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    paths.push_back(entry->path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

bool is_taken(const fs::path& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_filled_file(const fs::path& path) {
  std::error_code error;
  return is_file(path) && fs::file_size(path, error) > 0 && !error;
}

bool is_real_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() == fs::file_type::directory;
}

std::vector<fs::path> entries_of(const fs::path& directory, FailAs fail_as,
                                 const std::string& remedy) {
  std::error_code error;
  std::vector<fs::path> paths = list(directory, error);
  if (!error) return paths;
  Problem p =
      problem(cat("the directory cannot be read: ", error.message())).at(directory.string());
  throw_as(fail_as, remedy.empty() ? p : std::move(p).remedy(remedy));
}

std::vector<fs::path> entries_if_readable(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> paths = list(directory, error);
  if (error) paths.clear();
  return paths;
}

}  // namespace tptrain
