#include "tokenizer/cut_places.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"
#include "tokenizer/normalizer.h"

namespace tptrain::tokenizer {

namespace {

constexpr uint8_t kCharacter = 128;  // beside the classes

uint8_t class_of(std::string_view character) {
  if (character.empty() || utf8_length(character) != character.size()) return 0;
  size_t at = 0;
  return character_classes()[next_code_point(character, at)] | kCharacter;
}

// 0 where there is no whole character.
uint8_t class_at(std::string_view text, size_t begin) {
  return class_of(text.substr(begin, utf8_length(text.substr(begin))));
}
uint8_t class_before(std::string_view text, size_t end) {
  const size_t begin = previous_character(text, end);
  return class_of(text.substr(begin, end - begin));
}

bool is_visible(uint8_t found) { return found != 0 && !(found & kSpace); }

/// Whether it may be found, or not, by what stands on both sides of a line end.
bool goes_over_lines(const AddedToken& token) {
  return token.lstrip || token.single_word || token.content.find('\n') != std::string::npos;
}

/// The same of spaces. One that is looked for behind the normaliser may begin with other bytes than
/// its content.
bool goes_over_spaces(const AddedToken& token) {
  const bool plain = token.content.empty() || static_cast<unsigned char>(token.content[0]) < 0x80;
  return token.lstrip || token.rstrip || token.single_word || (token.normalized && !plain) ||
         token.content.find_first_of(" \r") != std::string::npos;
}

}  // namespace

CutPlaces::CutPlaces(Pieces pieces, const std::vector<AddedToken>& added) {
  within_spaces_ = std::none_of(added.begin(), added.end(), goes_over_spaces);
  const bool apart = pieces == Pieces::metaspaces
                         ? within_spaces_
                         : std::none_of(added.begin(), added.end(), goes_over_lines);
  if (apart) pieces_ = pieces;
  for (const AddedToken& token : added) {
    if (token.content.empty()) continue;
    begins_added_[static_cast<unsigned char>(token.content.front())] = true;
    ends_added_[static_cast<unsigned char>(token.content.back())] = true;
  }
}

size_t CutPlaces::last(std::string_view text) const {
  if (pieces_ == Pieces::unknown) return 0;
  if (pieces_ == Pieces::metaspaces) return last_space(text);
  if (const size_t at = last_line(text); at > 0 || !within_spaces_) return at;
  // A line without an end: a word takes the space before it along.
  for (size_t at = text.size(); at-- > 2;) {
    if (text[at - 1] == ' ' && (class_at(text, at) & kLetter) &&
        (class_before(text, at - 1) & kLetter))
      return at - 1;
  }
  return 0;
}

// The patterns begin a piece with what is visible behind a line end, and what stands before becomes
// the same pieces without what follows. A run of white space does so where it is one line end; a
// longer one does by the patterns of Qwen and Llama 3, whose pieces of white space end with its
// last line end, and by that of GPT-2 but for its last character, which is the next piece's, unless
// an added token follows: before one the run is one piece, as at the end of the text.
size_t CutPlaces::last_line(std::string_view text) const {
  for (size_t at = text.size(); at-- > 1;) {
    if (text[at - 1] != '\n' || !is_visible(class_at(text, at))) continue;
    if (pieces_ == Pieces::cl100k) return at;
    if (at == 1) continue;
    const uint8_t before = class_before(text, at - 1);
    if (is_visible(before)) return at;
    if (within_spaces_ && (before & kSpace) && !begins_added_[static_cast<unsigned char>(text[at])])
      return at - 1;
  }
  return 0;
}

// Before one space between visible characters. A tokenizer that puts a space before a text puts one
// behind each added token, too, and a text that begins with one gets none: neither may stand here.
size_t CutPlaces::last_space(std::string_view text) const {
  for (size_t at = text.size(); at-- > 1;) {
    if (text[at] != ' ' || at + 1 == text.size()) continue;
    const std::string_view before = text.substr(0, at), behind = text.substr(at + 1);
    if (!is_visible(class_before(before, at)) || !is_visible(class_at(behind, 0)) ||
        before.ends_with(kMetaspace) || behind.starts_with(kMetaspace) ||
        ends_added_[static_cast<unsigned char>(before.back())] ||
        begins_added_[static_cast<unsigned char>(behind.front())])
      continue;
    return at;
  }
  return 0;
}

std::optional<size_t> skipped_behind_space(const Tokenizer& tokenizer) {
  try {
    const std::vector<int32_t> whole = tokenizer.encode("a b");
    for (const size_t skipped : {size_t{1}, size_t{0}}) {
      std::vector<int32_t> parts = tokenizer.encode("a");
      const std::vector<int32_t> second = tokenizer.encode(std::string_view(" b").substr(skipped));
      parts.insert(parts.end(), second.begin(), second.end());
      if (parts == whole) return skipped;
    }
  } catch (const DataError&) {  // its vocabulary has no such characters
  }
  return std::nullopt;
}

}  // namespace tptrain::tokenizer
