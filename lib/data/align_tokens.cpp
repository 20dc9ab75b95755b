#include "data/align_tokens.h"

#include <optional>
#include <string>

namespace tptrain::data {

namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581, a space within a token

/// <0x0A>, the byte that a token of the fallback stands for.
std::optional<char> byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = 16 * value + digit;
  }
  return static_cast<char>(value);
}

std::string with_spaces(std::string_view token) {
  std::string text;
  for (size_t at = 0; at < token.size();) {
    const bool space = token.substr(at).starts_with(kMetaspace);
    text += space ? ' ' : token[at];
    at += space ? kMetaspace.size() : 1;
  }
  return text;
}

class Aligner {
 public:
  Aligner(const tokenizer::Tokenizer& tokenizer, std::string_view text,
          std::span<const int32_t> ids)
      : tokenizer_(tokenizer), text_(text), ids_(ids), at_(ids.size()) {}

  std::vector<TokenAt> run() {
    for (size_t i = 0; i < ids_.size(); ++i) at_[i].special = is_special(ids_[i]);
    for (size_t i = 0; i < ids_.size();) {
      if (const auto length = length_of(i)) {
        place_ += *length;
        at_[i++].end = place_;
        may_be_prefixed_ = at_[i - 1].special;
        continue;
      }
      i = pass_changed(i);
    }
    // What no token stands for, at the very end, is the last one's.
    if (!at_.empty()) at_.back().end = text_.size();
    return std::move(at_);
  }

 private:
  bool is_special(int32_t id) const {
    return tokenizer_.decode({id}, {.skip_special = true}).empty() &&
           !tokenizer_.decode({id}, {.skip_special = false}).empty();
  }

  bool text_goes_on_with(std::string_view part) const {
    return !part.empty() && text_.substr(place_).starts_with(part);
  }

  /// How many bytes from place_ on token `i` stands for; none where it spells something else.
  std::optional<size_t> length_of(size_t i) const {
    const std::string token = tokenizer_.token(ids_[i]);
    if (const auto byte = byte_of(token)) {
      if (place_ < text_.size() && text_[place_] == *byte) return 1;
    }
    if (token.find(kMetaspace) != std::string::npos) {
      const std::string spaced = with_spaces(token);
      if (text_goes_on_with(spaced)) return spaced.size();
      // The space that the tokenizer puts in front of a text.
      const std::string_view rest = std::string_view(spaced).substr(1);
      if (may_be_prefixed_ && spaced[0] == ' ' && (rest.empty() || text_goes_on_with(rest))) {
        return rest.size();
      }
    }
    const std::string spelled = tokenizer_.decode({ids_[i]}, {.skip_special = false});
    if (text_goes_on_with(spelled)) return spelled.size();
    if (!at_[i].special) return std::nullopt;
    // Spaces around a special token may be its own.
    const size_t word = text_.find_first_not_of(" \t\r\n", place_);
    if (word == std::string_view::npos || !text_.substr(word).starts_with(spelled)) {
      return std::nullopt;
    }
    return word - place_ + spelled.size();
  }

  /// From token `i` on up to the next special one that stands in the text; returns which that is.
  size_t pass_changed(size_t i) {
    size_t next = i + 1;
    while (next < ids_.size() && !at_[next].special) ++next;
    size_t end = text_.size();
    if (next < ids_.size()) {
      const size_t found =
          text_.find(tokenizer_.decode({ids_[next]}, {.skip_special = false}), place_);
      if (found != std::string_view::npos) end = found;
    }
    for (; i < next; ++i) at_[i] = {.end = end, .known = false, .special = at_[i].special};
    place_ = end;
    may_be_prefixed_ = true;
    return next;
  }

  const tokenizer::Tokenizer& tokenizer_;
  std::string_view text_;
  std::span<const int32_t> ids_;
  std::vector<TokenAt> at_;
  size_t place_ = 0;
  bool may_be_prefixed_ = true;
};

}  // namespace

std::vector<TokenAt> align_tokens(const tokenizer::Tokenizer& tokenizer, std::string_view text,
                                  std::span<const int32_t> ids) {
  return Aligner(tokenizer, text, ids).run();
}

}  // namespace tptrain::data
