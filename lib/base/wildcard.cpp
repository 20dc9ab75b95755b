#include "base/wildcard.h"

#include <cstddef>
#include <optional>

namespace tptrain {

namespace {

/// What one place of a pattern takes: whether `c`, and its length in the pattern.
struct Taken {
  bool matches;
  size_t length;
};

/// The set that begins at pattern[0] == '['. None where it is not closed.
std::optional<Taken> match_set(std::string_view pattern, char c) {
  size_t at = 1;
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  const size_t first = at;
  bool found = false;
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
  return Taken{found != negated, at + 1};
}

Taken match_one(std::string_view pattern, char c) {
  if (pattern.empty()) return {false, 0};
  if (pattern.front() == '[') {
    if (const std::optional<Taken> set = match_set(pattern, c)) return *set;
  }
  return {pattern.front() == '?' || pattern.front() == c, 1};
}

}  // namespace

bool has_wildcard(std::string_view text) {
  return text.find_first_of("*?[") != std::string_view::npos;
}

bool matches_wildcards(std::string_view pattern, std::string_view name) {
  // On a mismatch the latest * takes one character more. An earlier * need not be tried again: the
  // later one can make up for whatever that would change.
  size_t at = 0, in_name = 0;
  size_t after_star = std::string_view::npos, star_end = 0;
  while (in_name < name.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      after_star = ++at;
      star_end = in_name;
      continue;
    }
    const Taken taken = match_one(pattern.substr(at), name[in_name]);
    if (taken.matches) {
      at += taken.length;
      ++in_name;
    } else if (after_star != std::string_view::npos) {
      at = after_star;
      in_name = ++star_end;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', at) == std::string_view::npos;
}

}  // namespace tptrain
