#include "data/glob.h"

#include <optional>
#include <span>
#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::data {

namespace fs = std::filesystem;

namespace {

bool has_wildcard(std::string_view text) {
  return text.find_first_of("*?[") != std::string_view::npos;
}

bool is_hidden(const fs::path& name) { return name.native().starts_with('.'); }

/// The set that begins at pattern[0] == '[': whether `c` is in it, and its length. None where it is
/// not closed: then '[' is itself.
struct SetMatch {
  bool matches;
  size_t length;
};
std::optional<SetMatch> match_set(std::string_view pattern, char c) {
  size_t at = 1;
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  const size_t first = at;
  bool found = false;
  // A ']' that comes first is a member, as in a shell.
  for (; at < pattern.size() && (pattern[at] != ']' || at == first); ++at) {
    const auto low = static_cast<unsigned char>(pattern[at]);
    unsigned char high = low;
    if (at + 2 < pattern.size() && pattern[at + 1] == '-' && pattern[at + 2] != ']') {
      high = static_cast<unsigned char>(pattern[at + 2]);
      at += 2;
    }
    const auto byte = static_cast<unsigned char>(c);
    found = found || (low <= byte && byte <= high);
  }
  if (at >= pattern.size()) return std::nullopt;
  return SetMatch{found != negated, at + 1};
}

std::vector<fs::directory_entry> entries_of(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::directory_entry> entries;
  fs::directory_iterator at(directory.empty() ? "." : directory, error);
  while (!error && at != fs::directory_iterator()) {
    entries.push_back(*at);
    at.increment(error);
  }
  if (error) {
    throw DataError(problem(cat("the directory cannot be read: ", error.message()))
                        .at(directory.string())
                        .remedy("Check its permissions, or name the files themselves."));
  }
  return entries;
}

// A link that leads nowhere is neither; what it hides is noticed where nothing else matches.
bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}
bool names_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}
bool is_link(const fs::path& path) {
  std::error_code ignored;
  return fs::is_symlink(path, ignored);
}

void collect_below(const fs::path& directory, std::vector<fs::path>& files) {
  for (const fs::directory_entry& entry : entries_of(directory)) {
    const fs::path path = directory / entry.path().filename();
    if (is_hidden(path.filename())) continue;
    if (is_file(path)) files.push_back(path);
    if (names_directory(path) && !is_link(path)) collect_below(path, files);
  }
}

void expand_below(const fs::path& base, std::span<const std::string> components,
                  GlobResult& result) {
  if (components.empty()) {
    if (is_file(base)) result.files.push_back(base);
    if (names_directory(base)) ++result.matched_directories;
    return;
  }
  const std::string& pattern = components.front();
  const auto rest = components.subspan(1);
  const fs::path listed = base.empty() ? fs::path(".") : base;
  if (pattern == "**") {
    if (!names_directory(listed)) return;
    if (rest.empty()) return collect_below(base, result.files);
    expand_below(base, rest, result);  // ** as no component at all
    for (const fs::directory_entry& entry : entries_of(base)) {
      const fs::path path = base / entry.path().filename();
      if (is_hidden(path.filename()) || !names_directory(path) || is_link(path)) continue;
      expand_below(path, components, result);
    }
    return;
  }
  if (!has_wildcard(pattern)) {
    std::error_code ignored;
    if (fs::exists(base / pattern, ignored)) expand_below(base / pattern, rest, result);
    return;
  }
  if (!names_directory(listed)) return;
  for (const fs::directory_entry& entry : entries_of(base)) {
    const std::string name = entry.path().filename().native();
    if (matches_component(pattern, name)) expand_below(base / name, rest, result);
  }
}

}  // namespace

bool matches_component(std::string_view pattern, std::string_view name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  // After a mismatch only the last '*' is tried again, one character longer: linear for one star,
  // never exponential.
  size_t p = 0;
  size_t n = 0;
  size_t star = std::string_view::npos;
  size_t star_name = 0;
  while (n < name.size()) {
    bool matched = false;
    size_t length = 1;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
      continue;
    }
    if (p < pattern.size()) {
      std::optional<SetMatch> set;
      if (pattern[p] == '[') set = match_set(pattern.substr(p), name[n]);
      matched = set ? set->matches : pattern[p] == '?' || pattern[p] == name[n];
      if (set) length = set->length;
    }
    if (matched) {
      p += length;
      ++n;
      continue;
    }
    if (star == std::string_view::npos) return false;
    p = star + 1;
    n = ++star_name;
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

GlobResult expand_glob(const std::string& pattern) {
  GlobResult result;
  if (pattern.empty()) return result;
  const fs::path path = fs::path(pattern).lexically_normal();
  if (is_file(path)) {
    result.files.push_back(path);
    return result;
  }
  if (names_directory(path)) {
    collect_below(path == "." ? fs::path() : path, result.files);
    result.empty_directory = result.files.empty();
    return result;
  }
  std::error_code ignored;
  if (fs::exists(path, ignored)) {
    result.special_file = true;
    return result;
  }
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
