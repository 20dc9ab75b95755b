#include "tokenizer/piece_scanner.h"

#include "base/error.h"
#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

constexpr uint8_t kKinds = kLetter | kNumber | kSpace;

class Scanner {
 public:
  Scanner(std::string_view text, const std::vector<uint8_t>& classes)
      : text_(text), classes_(classes.data()) {}

  /// The class of the character at `pos`, 0 at the end of the text; `next` is set behind it.
  uint8_t look(size_t pos, size_t& next) const {
    if (pos >= text_.size()) return next = pos, kEnd;
    next = pos;
    return classes_[next_code_point(text_, next)] & (kKinds | kNewline);
  }
  /// Behind the run of characters of `kind` (0: no letter, number or space) from `pos`.
  size_t run(size_t pos, uint8_t kind) const {
    size_t next;
    while (true) {
      const uint8_t found = look(pos, next);
      if (found == kEnd || (found & kKinds) != kind) return pos;
      pos = next;
    }
  }
  /// Bytes of the contraction ('s, 'll) at `pos`, which is an apostrophe; 0 where none is there.
  size_t contraction(size_t pos, bool any_case) const {
    const auto letter = [&](size_t i) -> char {
      if (i >= text_.size()) return 0;
      const char c = text_[i];
      return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    };
    const char first = letter(pos + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    const char second = letter(pos + 2);
    if ((first == 'r' || first == 'v') && second == 'e') return 3;
    if (first == 'l' && second == 'l') return 3;
    // The long s, U+017F, is an s where case does not count.
    if (any_case && first == '\xC5' && second == '\xBF') return 3;
    return 0;
  }
  /// A run of white space from `pos`, as the last alternatives of the patterns take it: all of it
  /// at the end of the text, else all but the last character, which belongs to the next piece.
  size_t space_end(size_t pos) const {
    const size_t end = run(pos, kSpace);
    if (end == text_.size()) return end;
    const size_t before_last = previous_character(text_, end);
    return before_last > pos ? before_last : end;
  }

  static constexpr uint8_t kEnd = 128;

 private:
  std::string_view text_;
  const uint8_t* classes_;
};

size_t gpt2_end(std::string_view text, size_t begin, const Scanner& scan) {
  if (text[begin] == '\'') {
    if (const size_t length = scan.contraction(begin, false)) return begin + length;
  }
  size_t next;
  const uint8_t kind = scan.look(begin, next) & kKinds;
  if (kind != kSpace) return scan.run(next, kind);
  if (text[begin] == ' ') {
    size_t behind;
    const uint8_t after = scan.look(next, behind);
    if (after != Scanner::kEnd && (after & kKinds) != kSpace) {
      return scan.run(behind, after & kKinds);
    }
  }
  return scan.space_end(begin);
}

// Other characters, and the line ends behind them.
size_t other_end(std::string_view text, size_t pos, const Scanner& scan) {
  pos = scan.run(pos, 0);
  while (pos < text.size() && (text[pos] == '\r' || text[pos] == '\n')) ++pos;
  return pos;
}

size_t cl100k_end(std::string_view text, size_t begin, const Scanner& scan, int most_digits) {
  if (text[begin] == '\'') {
    if (const size_t length = scan.contraction(begin, true)) return begin + length;
  }
  size_t next;
  const uint8_t found = scan.look(begin, next);
  if (found & kLetter) return scan.run(next, kLetter);
  if (found & kNumber) {
    size_t end = next;
    for (int digits = 1; digits < most_digits; ++digits) {
      size_t behind;
      const uint8_t kind = scan.look(end, behind);
      if (kind == Scanner::kEnd || !(kind & kNumber)) break;
      end = behind;
    }
    return end;
  }
  size_t behind;
  const uint8_t after = scan.look(next, behind);
  // Any one character but a line end may stand before a word.
  if (after != Scanner::kEnd && (after & kLetter) && !(found & kNewline)) {
    return scan.run(behind, kLetter);
  }
  if (!(found & kSpace)) return other_end(text, next, scan);
  if (text[begin] == ' ' && after != Scanner::kEnd && (after & kKinds) == 0) {
    return other_end(text, behind, scan);
  }
  // White space up to its last line end.
  const size_t end = scan.run(begin, kSpace);
  for (size_t i = end; i > begin; --i) {
    if (text[i - 1] == '\r' || text[i - 1] == '\n') return i;
  }
  return scan.space_end(begin);
}

}  // namespace

KnownPattern known_pattern(std::string_view regex) {
  if (regex == kGpt2Pattern) return KnownPattern::gpt2;
  if (regex == kQwen2Pattern) return KnownPattern::qwen2;
  if (regex == kLlama3Pattern) return KnownPattern::llama3;
  return KnownPattern::none;
}

size_t piece_end(KnownPattern pattern, std::string_view text, size_t begin,
                 const std::vector<uint8_t>& classes) {
  const Scanner scan(text, classes);
  switch (pattern) {
    case KnownPattern::gpt2:
      return gpt2_end(text, begin, scan);
    case KnownPattern::qwen2:
      return cl100k_end(text, begin, scan, 1);
    case KnownPattern::llama3:
      return cl100k_end(text, begin, scan, 3);
    case KnownPattern::none:
      break;
  }
  throw InternalError(problem("no scanner for this pattern"));
}

}  // namespace tptrain::tokenizer
