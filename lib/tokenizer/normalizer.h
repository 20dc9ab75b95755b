// What a tokenizer.json calls its normalizer: text to text, before it is cut into pieces.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace tptrain::tokenizer {

/// A string, found as it is, or a regular expression.
class Pattern {
 public:
  /// Throws DataError where `literal` is empty.
  static Pattern of_literal(const std::string& literal, const std::string& where);
  static Pattern of_regex(const std::string& regex, const std::string& where);

  /// As Regex::find_all.
  void find_all(std::string_view text, std::vector<Span>& spans) const;
  /// What it is, where it is no regular expression; else "".
  const std::string& literal() const { return literal_; }
  /// `text` with each match replaced by `content`.
  std::string replace_all(std::string_view text, const std::string& content) const;

 private:
  std::string literal_;
  std::unique_ptr<Regex> regex_;
};

/// What tokenizers without patterns write for a space, U+2581.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

class Normalizer {
 public:
  enum class Form { nfc, nfd, nfkc, nfkd };

  void add_form(Form form) { steps_.push_back({.kind = Kind::form, .form = form}); }
  void add_lowercase() { steps_.push_back({.kind = Kind::lowercase}); }
  void add_prepend(const std::string& text) {
    steps_.push_back({.kind = Kind::prepend, .text = text});
  }
  void add_replace(Pattern pattern, const std::string& content) {
    steps_.push_back({.kind = Kind::replace, .text = content, .pattern = std::move(pattern)});
  }
  void add_strip(bool left, bool right) {
    steps_.push_back({.kind = Kind::strip, .left = left, .right = right});
  }
  void add_byte_characters() { steps_.push_back({.kind = Kind::byte_characters}); }

  bool empty() const { return steps_.empty(); }
  /// Whether what stands before a line end and what stands behind it are normalised by themselves.
  bool keeps_lines_apart() const;
  /// Whether it does nothing but write metaspaces for spaces, and one before the text; and whether
  /// it replaces spaces.
  bool only_writes_metaspaces() const;
  bool replaces_spaces() const;
  size_t size() const { return steps_.size(); }

  /// The normalised text: `text` itself where nothing changes, else `buffer`'s content. `at_start`
  /// says on entry that `text` is the start of what was given to the tokenizer, on return that the
  /// first character still stands for that start (a metaspace is only put there). Throws DataError
  /// where the text grows out of all proportion.
  std::string_view apply(std::string_view text, std::string& buffer, bool& at_start) const;

 private:
  enum class Kind { form, lowercase, prepend, replace, strip, byte_characters };
  struct Step {
    Kind kind;
    Form form = Form::nfc;
    std::string text = {};
    Pattern pattern = {};
    bool left = false;
    bool right = false;
  };
  std::vector<Step> steps_;
};

/// How the byte-level tokenizers write bytes as characters: printable ASCII and Latin-1 as they
/// are, the others as U+0100 and following.
uint32_t character_of_byte(unsigned char byte);
/// The byte that such a character stands for, or -1.
int byte_of_character(uint32_t code_point);
std::string byte_characters(std::string_view bytes);

}  // namespace tptrain::tokenizer
