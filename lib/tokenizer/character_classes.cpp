#include "tokenizer/character_classes.h"

#include <string_view>

#include "base/error.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode_differences.h"

// Last: its macros are many.
#include <oniguruma.h>

namespace tptrain::tokenizer {

namespace {

void mark(std::vector<uint8_t>& classes, int ctype, uint8_t bit) {
  OnigCodePoint single_byte_end = 0;
  const OnigCodePoint* ranges = nullptr;
  const int found =
      ONIGENC_GET_CTYPE_CODE_RANGE(ONIG_ENCODING_UTF8, ctype, &single_byte_end, &ranges);
  if (found != 0 || ranges == nullptr) {
    throw InternalError(problem("Oniguruma has no ranges for a Unicode property"));
  }
  for (OnigCodePoint range = 0; range < ranges[0]; ++range) {
    const OnigCodePoint last = ranges[2 + 2 * range];
    for (OnigCodePoint c = ranges[1 + 2 * range]; c <= last && c < classes.size(); ++c) {
      classes[c] |= bit;
    }
  }
}

void mark(std::vector<uint8_t>& classes, uint32_t first, uint32_t last, uint8_t bit) {
  for (uint32_t c = first; c <= last; ++c) classes[c] |= bit;
}

int property(std::string_view name) {
  // Only read, though Oniguruma's header does not say so.
  auto* begin = const_cast<UChar*>(reinterpret_cast<const UChar*>(name.data()));
  const int ctype = ONIGENC_PROPERTY_NAME_TO_CTYPE(ONIG_ENCODING_UTF8, begin, begin + name.size());
  if (ctype < 0) throw InternalError(problem("Oniguruma does not know a Unicode property"));
  return ctype;
}

std::vector<uint8_t> build() {
  initialize_oniguruma();
  std::vector<uint8_t> classes(0x110000, 0);
  mark(classes, property("L"), kLetter);
  mark(classes, property("N"), kNumber);
  mark(classes, property("P"), kPunctuation);
  mark(classes, ONIGENC_CTYPE_SPACE, kSpace);
  mark(classes, ONIGENC_CTYPE_WORD, kWord);
  for (const auto& [first, last] : kLettersSince15) mark(classes, first, last, kLetter);
  for (const auto& [first, last] : kNumbersSince15) mark(classes, first, last, kNumber);
  for (const auto& [first, last] : kWordSince15) mark(classes, first, last, kWord);
  for (const auto& [first, last] : kNoPunctuationInLibrary) {
    for (uint32_t c = first; c <= last; ++c) classes[c] &= static_cast<uint8_t>(~kPunctuation);
  }
  for (const uint32_t c : {0x166Du, 0x111C9u}) classes[c] |= kPunctuation;  // once they were
  for (const uint32_t joiner : {0x200Cu, 0x200Du}) classes[joiner] |= kWord;
  for (const char c : std::string_view("$+<=>^`|~")) classes[c] |= kPunctuation;
  classes['\r'] |= kNewline;
  classes['\n'] |= kNewline;
  return classes;
}

}  // namespace

bool newer_than_oniguruma(uint32_t code_point) {
  const auto within = [&](const auto& ranges) {
    for (const auto& [first, last] : ranges) {
      if (code_point >= first && code_point <= last) return true;
    }
    return false;
  };
  return within(kLettersSince15) || within(kNumbersSince15);
}

const std::vector<uint8_t>& character_classes() {
  static const std::vector<uint8_t> classes = build();
  return classes;
}

}  // namespace tptrain::tokenizer
