#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"
#include "tokenizer/unicode_forms.h"

namespace tptrain::tokenizer {

namespace {

// More than any form of Unicode (U+FDFA becomes 18 characters) and any real list of replacements.
size_t growth_limit(size_t size) { return 64 * size + (size_t{1} << 16); }

std::string lowercase(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const uint32_t c = next_code_point(text, pos);
    if (c == 0x130) {
      lower += "i\xCC\x87";  // the one character whose lower case is two
    } else {
      append_utf8(lower, static_cast<uint32_t>(utf8proc_tolower(static_cast<int32_t>(c))));
    }
  }
  return lower;
}

bool is_space(uint32_t c) { return character_classes()[c] & kSpace; }

std::string_view strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    size_t pos = 0;
    if (!is_space(next_code_point(text, pos))) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    const size_t begin = previous_character(text, text.size());
    size_t pos = begin;
    if (!is_space(next_code_point(text, pos))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::string joined(std::string_view text, const std::vector<Span>& spans,
                   const std::string& content) {
  std::string replaced;
  for (const Span& span : spans) {
    if (span.match) {
      replaced += content;
    } else {
      replaced += text.substr(span.begin, span.end - span.begin);
    }
    if (replaced.size() > growth_limit(text.size())) {
      throw DataError(
          problem(cat("replacing lets a text of ", text.size(), " bytes grow to ", replaced.size()))
              .at("tokenizer"));
    }
  }
  return replaced;
}

// The library keeps for every character the place it came from; what it puts in for a match comes
// from the match's last character.
bool still_at_start(std::string_view text, const std::vector<Span>& spans,
                    const std::string& content) {
  if (spans.empty() || !spans[0].match) return true;
  if (spans[0].begin == spans[0].end) return true;
  if (content.empty()) return false;
  size_t pos = 0;
  next_code_point(text, pos);
  return pos == spans[0].end;
}

}  // namespace

Pattern Pattern::of_literal(const std::string& literal, const std::string& where) {
  if (literal.empty()) {
    throw DataError(problem("empty pattern").at(where).must("have a character at least"));
  }
  Pattern pattern;
  pattern.literal_ = literal;
  return pattern;
}

Pattern Pattern::of_regex(const std::string& regex, const std::string& where) {
  Pattern pattern;
  pattern.regex_ = std::make_unique<Regex>(regex, where);
  return pattern;
}

void Pattern::find_all(std::string_view text, std::vector<Span>& spans) const {
  if (regex_) return regex_->find_all(text, spans);
  size_t covered = 0;
  for (size_t found = text.find(literal_); found != text.npos;
       found = text.find(literal_, covered)) {
    if (covered < found) spans.push_back({covered, found, false});
    covered = found + literal_.size();
    spans.push_back({found, covered, true});
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), false});
}

std::string Pattern::replace_all(std::string_view text, const std::string& content) const {
  std::vector<Span> spans;
  find_all(text, spans);
  return joined(text, spans, content);
}

// Nothing composes with a line end. Of the other steps it depends on what they are given.
bool Normalizer::keeps_lines_apart() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == Kind::form && step.form == Form::nfc;
  });
}

bool Normalizer::only_writes_metaspaces() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return (step.kind == Kind::prepend && step.text == kMetaspace) ||
           (step.kind == Kind::replace && step.pattern.literal() == " " && step.text == kMetaspace);
  });
}

bool Normalizer::replaces_spaces() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == Kind::replace && step.pattern.literal() == " ";
  });
}

std::string_view Normalizer::apply(std::string_view text, std::string& buffer,
                                   bool& at_start) const {
  const size_t limit = growth_limit(text.size());
  std::string other;
  // `current` is the text given or lies in buffer; each step writes to `other`, then they swap.
  std::string_view current = text;
  const auto take = [&](std::string&& next) {
    buffer = std::move(next);
    current = buffer;
  };
  for (const Step& step : steps_) {
    if (current.empty()) break;
    switch (step.kind) {
      case Kind::form:
        if (step.form == Form::nfc) {
          const std::string_view form = form_c(current, other);
          if (form.data() == other.data()) take(std::exchange(other, {}));
        } else {
          take(unicode_form(current, step.form == Form::nfkc,
                            step.form == Form::nfkc || step.form == Form::nfkd));
        }
        break;
      case Kind::lowercase:
        take(lowercase(current));
        break;
      case Kind::prepend:
        take(step.text + std::string(current));
        break;
      case Kind::replace: {
        std::vector<Span> spans;
        step.pattern.find_all(current, spans);
        if (spans.size() == 1 && !spans[0].match) break;
        at_start = at_start && still_at_start(current, spans, step.text);
        take(joined(current, spans, step.text));
        break;
      }
      case Kind::strip: {
        const std::string_view stripped = strip(current, step.left, step.right);
        if (stripped.data() != current.data()) at_start = false;
        if (stripped.size() != current.size()) take(std::string(stripped));
        break;
      }
      case Kind::byte_characters:
        take(byte_characters(current));
        break;
    }
    if (current.size() > limit) {
      throw DataError(problem(cat("the normalizer lets a text of ", text.size(), " bytes grow to ",
                                  current.size()))
                          .at("tokenizer"));
    }
  }
  return current;
}

uint32_t character_of_byte(unsigned char byte) {
  if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE) return byte;
  if (byte <= 0x20) return 0x100u + byte;
  if (byte <= 0xA0) return 0x100u + 0x21 + (byte - 0x7F);
  return 0x143;  // 0xAD
}

int byte_of_character(uint32_t c) {
  static const std::array<int16_t, 0x144> table = [] {
    std::array<int16_t, 0x144> bytes;
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte) {
      bytes[character_of_byte(static_cast<unsigned char>(byte))] = static_cast<int16_t>(byte);
    }
    return bytes;
  }();
  return c < table.size() ? table[c] : -1;
}

std::string byte_characters(std::string_view bytes) {
  std::string characters;
  characters.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) {
    append_utf8(characters, character_of_byte(static_cast<unsigned char>(byte)));
  }
  return characters;
}

}  // namespace tptrain::tokenizer
