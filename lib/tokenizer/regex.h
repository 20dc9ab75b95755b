// A regular expression of a tokenizer file, run by Oniguruma with the limits that keep a hostile
// pattern from taking the process: none on what it may say, but on its length and on the steps and
// the memory that a search may take.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::tokenizer {

/// Once for the process; cheap afterwards.
void initialize_oniguruma();

/// A part of a text, and whether the pattern matched it.
struct Span {
  size_t begin;
  size_t end;
  bool match;
};

class Regex {
 public:
  /// Throws DataError with Oniguruma's own words, naming `where`.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// Appends the matches from left to right and the parts between them; together they are `text`.
  /// An empty match directly behind another match is left out. `text` must be UTF-8. Throws
  /// DataError where the pattern needs too many steps for this text. Several threads may call it.
  void find_all(std::string_view text, std::vector<Span>& spans) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::tokenizer
