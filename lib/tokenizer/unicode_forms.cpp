#include "tokenizer/unicode_forms.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

namespace {

constexpr uint32_t kFirstUnsafe = 0x300;  // below it, every character is in form C and stays so

// True for each code point that form C may change, move or join to the one before it; between any
// two others a text can be cut and the parts normalised alone.
std::vector<bool> build_unsafe() {
  std::vector<bool> unsafe(0x110000, false);
  for (utf8proc_int32_t c = kFirstUnsafe; c < 0x110000; ++c) {
    if (c >= 0xAC00 && c < 0xD7A4) continue;  // whole Hangul syllables; a trailing jamo is unsafe
    const utf8proc_property_t* property = utf8proc_get_property(c);
    if (property->combining_class != 0) unsafe[c] = true;
    if (property->decomp_seqindex == UINT16_MAX || property->decomp_type != 0) continue;
    utf8proc_int32_t parts[32];
    int boundary_class = 0;
    const auto count =
        utf8proc_decompose_char(c, parts, 32, UTF8PROC_DECOMPOSE, &boundary_class);
    for (int i = 1; i < count && i < 32; ++i) unsafe[parts[i]] = true;
    std::vector<utf8proc_int32_t> whole(parts, parts + std::clamp<int>(count, 0, 32));
    const auto composed = utf8proc_normalize_utf32(
        whole.data(), static_cast<utf8proc_ssize_t>(whole.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (composed != 1 || whole[0] != c) unsafe[c] = true;
  }
  // The characters below kFirstUnsafe decompose too; what they decompose into is the same set of
  // marks, all of which have a combining class. Hangul vowels and trailing consonants join upwards.
  for (uint32_t c = 0x1161; c <= 0x1175; ++c) unsafe[c] = true;
  for (uint32_t c = 0x11A8; c <= 0x11C2; ++c) unsafe[c] = true;
  return unsafe;
}

bool is_unsafe(uint32_t c) {
  static const std::vector<bool> unsafe = build_unsafe();
  return c >= kFirstUnsafe && unsafe[c];
}

std::string normalised(std::string_view text, int options) {
  std::string form;
  if (text.empty()) return form;
  utf8proc_uint8_t* result = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &result,
                   static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  if (length < 0) {
    throw DataError(problem(cat("text of ", text.size(), " bytes cannot be normalised: ",
                                utf8proc_errmsg(length))));
  }
  form.assign(reinterpret_cast<char*>(result), static_cast<size_t>(length));
  free(result);
  return form;
}

}  // namespace

std::string unicode_form(std::string_view text, bool compose, bool compatibility) {
  return normalised(text, (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                              (compatibility ? UTF8PROC_COMPAT : 0));
}

std::string_view form_c(std::string_view text, std::string& buffer) {
  bool changed = false;
  size_t copied = 0;      // text before it is in buffer, once changed
  size_t safe_begin = 0;  // the last character that does not join what is before it
  size_t pos = 0;
  while (pos < text.size()) {
    // 0xCC leads U+0300.
    if (static_cast<unsigned char>(text[pos]) < 0xCC) {
      safe_begin = pos;
      pos += static_cast<unsigned char>(text[pos]) < 0x80 ? 1 : 2;
      continue;
    }
    const size_t begin = pos;
    if (!is_unsafe(next_code_point(text, pos))) {
      safe_begin = begin;
      continue;
    }
    size_t end = pos;
    while (pos < text.size()) {
      end = pos;
      if (!is_unsafe(next_code_point(text, pos))) break;
      end = pos;
    }
    pos = end;
    const std::string_view part = text.substr(safe_begin, end - safe_begin);
    std::string form = unicode_form(part, true, false);
    safe_begin = end;
    if (form == part) continue;
    if (!changed) buffer.clear();
    changed = true;
    const auto part_begin = static_cast<size_t>(part.data() - text.data());
    buffer.append(text, copied, part_begin - copied);
    buffer += form;
    copied = end;
  }
  if (!changed) return text;
  buffer.append(text, copied);
  return buffer;
}

}  // namespace tptrain::tokenizer
