// What a tokenizer.json calls its decoder: the strings of tokens back to text.
#pragma once

#include <string>
#include <vector>

#include "tokenizer/normalizer.h"

namespace tptrain::tokenizer {

class TokenDecoder {
 public:
  void add_byte_level() { steps_.push_back({.kind = Kind::byte_level}); }
  void add_byte_fallback() { steps_.push_back({.kind = Kind::byte_fallback}); }
  void add_fuse() { steps_.push_back({.kind = Kind::fuse}); }
  void add_strip(uint32_t character, size_t start, size_t stop) {
    steps_.push_back({.kind = Kind::strip, .character = character, .start = start, .stop = stop});
  }
  void add_replace(Pattern pattern, const std::string& content) {
    steps_.push_back({.kind = Kind::replace, .text = content, .pattern = std::move(pattern)});
  }
  void add_metaspace(const std::string& replacement, bool drop_first) {
    steps_.push_back({.kind = Kind::metaspace, .text = replacement, .drop_first = drop_first});
  }
  /// `suffix` ends a word: it becomes a space, at the end of the text nothing.
  void add_word_suffix(const std::string& suffix) {
    steps_.push_back({.kind = Kind::word_suffix, .text = suffix});
  }
  size_t size() const { return steps_.size(); }

  /// One text of all tokens. Without any step they are joined with spaces, as in the library. What
  /// byte-level tokens spell need not be whole UTF-8; bytes of byte_fallback that are no UTF-8 are
  /// a U+FFFD each, as in the library.
  std::string decode(std::vector<std::string> tokens) const;

 private:
  enum class Kind { byte_level, byte_fallback, fuse, strip, replace, metaspace, word_suffix };
  struct Step {
    Kind kind;
    std::string text = {};
    Pattern pattern = {};
    uint32_t character = 0;
    size_t start = 0;
    size_t stop = 0;
    bool drop_first = false;
  };
  static void apply(const Step& step, std::vector<std::string>& tokens);
  std::vector<Step> steps_;
};

}  // namespace tptrain::tokenizer
