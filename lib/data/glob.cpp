#include "data/glob.h"

#include <optional>
#include <span>
#include <system_error>

#include "base/directory.h"
#include "base/error.h"
#include "base/text.h"
#include "base/wildcard.h"

namespace tptrain::data {

namespace fs = std::filesystem;

namespace {

bool is_hidden(const fs::path& name) { return name.native().starts_with('.'); }

std::vector<fs::path> entries_in(const fs::path& directory) {
  return entries_of(directory.empty() ? "." : directory, FailAs::data_error,
                    "Check its permissions, or name the files themselves.");
}

enum class Kind { missing, file, directory, special };

/// What a path leads to, through links. A link that leads nowhere is an error where a listing
/// showed it: skipping it would drop text without a word.
Kind kind_of(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  switch (status.type()) {
    case fs::file_type::regular:
      return Kind::file;
    case fs::file_type::directory:
      return Kind::directory;
    case fs::file_type::not_found:
      return Kind::missing;
    case fs::file_type::none:
      throw DataError(problem(cat("stat failed: ", error.message()))
                          .at(path.string())
                          .remedy("Check the links and the permissions on the way to it."));
    default:
      return Kind::special;
  }
}
Kind kind_of_listed(const fs::path& path) {
  const Kind kind = kind_of(path);
  if (kind != Kind::missing) return kind;
  throw DataError(problem("the link leads to a file that is not there")
                      .at(path.string())
                      .remedy("Repair or remove the link."));
}

bool is_link(const fs::path& path) {
  std::error_code ignored;  // it was just seen
  return fs::is_symlink(path, ignored);
}

void collect_below(const fs::path& directory, std::vector<fs::path>& files) {
  for (const fs::path& entry : entries_in(directory)) {
    const fs::path path = directory / entry.filename();
    if (is_hidden(path.filename())) continue;
    const Kind kind = kind_of_listed(path);
    if (kind == Kind::file) files.push_back(path);
    if (kind == Kind::directory && !is_link(path)) collect_below(path, files);
  }
}

void expand_below(const fs::path& base, std::span<const std::string> components,
                  GlobResult& result) {
  if (components.empty()) {
    const Kind kind = kind_of_listed(base);
    if (kind == Kind::file) result.files.push_back(base);
    if (kind == Kind::directory) ++result.matched_directories;
    return;
  }
  const std::string& pattern = components.front();
  const auto rest = components.subspan(1);
  const fs::path listed = base.empty() ? fs::path(".") : base;
  if (pattern == "**") {
    if (kind_of(listed) != Kind::directory) return;
    if (rest.empty()) return collect_below(base, result.files);
    expand_below(base, rest, result);  // ** as no component at all
    for (const fs::path& entry : entries_in(base)) {
      const fs::path path = base / entry.filename();
      if (is_hidden(path.filename()) || is_link(path) || kind_of(path) != Kind::directory) continue;
      expand_below(path, components, result);
    }
    return;
  }
  if (!has_wildcard(pattern)) {
    if (kind_of(base / pattern) != Kind::missing) expand_below(base / pattern, rest, result);
    return;
  }
  if (kind_of(listed) != Kind::directory) return;
  for (const fs::path& entry : entries_in(base)) {
    const std::string name = entry.filename().native();
    if (matches_component(pattern, name)) expand_below(base / name, rest, result);
  }
}

}  // namespace

bool matches_component(std::string_view pattern, std::string_view name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  return matches_wildcards(pattern, name);
}

GlobResult expand_glob(const std::string& pattern) {
  GlobResult result;
  if (pattern.empty()) return result;
  const fs::path path = fs::path(pattern).lexically_normal();
  const Kind kind = kind_of(path);
  if (kind == Kind::file) result.files.push_back(path);
  result.directory = kind == Kind::directory;
  if (kind == Kind::directory) {
    collect_below(path == "." ? fs::path() : path, result.files);
    result.empty_directory = result.files.empty();
  }
  result.special_file = kind == Kind::special;
  if (kind != Kind::missing) return result;
  if (!has_wildcard(pattern)) return result;
  std::vector<std::string> components;
  for (const fs::path& part : path.relative_path()) {
    // Two ** in a row mean no more than one, but would visit everything twice.
    if (part.empty() || (part == "**" && !components.empty() && components.back() == "**"))
      continue;
    components.push_back(part.native());
  }
  expand_below(path.root_path(), components, result);
  return result;
}

}  // namespace tptrain::data
