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

// The library normalises by Unicode 9 (its crate unicode-normalization-alignments 0.1.12). What
// later versions, up to 18, gave a combining class, a decomposition or a composition it takes as
// characters that nothing is known of. Found by comparing it with Unicode's tables code point by
// code point.
constexpr uint32_t kUnknownToLibrary[][2] = {
    {0x558, 0x558},     {0x58B, 0x58C},     {0x5C8, 0x5C9},     {0x7FD, 0x7FD},
    {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AF0},
    {0x1DF6, 0x1DFA},   {0x209D, 0x209F},   {0x32FF, 0x32FF},   {0xA7F1, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x105C9, 0x105C9}, {0x105D2, 0x105D2},
    {0x105DA, 0x105DA}, {0x105E4, 0x105E4}, {0x10781, 0x10785}, {0x10787, 0x107B0},
    {0x107B2, 0x107BF}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC},
    {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11382, 0x11385},
    {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x11391}, {0x113B8, 0x113B8},
    {0x113BB, 0x113BB}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113C9},
    {0x113CE, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930},
    {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x1611E, 0x16129}, {0x1612F, 0x1612F}, {0x16D63, 0x16D63}, {0x16D67, 0x16D6A},
    {0x16FF0, 0x16FF1}, {0x1B123, 0x1B126}, {0x1CCD6, 0x1CCF9}, {0x1D127, 0x1D128},
    {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C}, {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281},
    {0x1D6A6, 0x1D6A6}, {0x1DF95, 0x1DF95}, {0x1DFCD, 0x1DFFF}, {0x1E030, 0x1E06D},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6},
    {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

enum Effect : uint8_t {
  kSafe,     // stays what and where it is in form C: a text can be cut before it
  kUnsafe,   // may change, move, or join the character before it
  kUnknown,  // has no effect on what is around it, in any form
};

std::vector<uint8_t> build_effects() {
  std::vector<uint8_t> effects(0x110000, kSafe);
  for (utf8proc_int32_t c = kFirstUnsafe; c < 0x110000; ++c) {
    if (c >= 0xAC00 && c < 0xD7A4) continue;  // whole Hangul syllables; a trailing jamo is unsafe
    const utf8proc_property_t* property = utf8proc_get_property(c);
    if (property->combining_class != 0) effects[c] = kUnsafe;
    if (property->decomp_seqindex == UINT16_MAX || property->decomp_type != 0) continue;
    utf8proc_int32_t parts[32];
    int boundary_class = 0;
    const auto count = utf8proc_decompose_char(c, parts, 32, UTF8PROC_DECOMPOSE, &boundary_class);
    for (int i = 1; i < count && i < 32; ++i) effects[parts[i]] = kUnsafe;
    std::vector<utf8proc_int32_t> whole(parts, parts + std::clamp<int>(count, 0, 32));
    const auto composed = utf8proc_normalize_utf32(
        whole.data(), static_cast<utf8proc_ssize_t>(whole.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (composed != 1 || whole[0] != c) effects[c] = kUnsafe;
  }
  // Characters below kFirstUnsafe decompose too, into marks that have a combining class. Hangul
  // vowels and trailing consonants join what is before them.
  for (uint32_t c = 0x1161; c <= 0x1175; ++c) effects[c] = kUnsafe;
  for (uint32_t c = 0x11A8; c <= 0x11C2; ++c) effects[c] = kUnsafe;
  for (const auto& [first, last] : kUnknownToLibrary) {
    std::fill(effects.begin() + first, effects.begin() + last + 1, kUnknown);
  }
  return effects;
}

uint8_t effect_of(uint32_t c) {
  static const std::vector<uint8_t> effects = build_effects();
  return effects[c];
}

// `text` without unknown characters.
std::string mapped(std::string_view text, int options) {
  std::string form;
  if (text.empty()) return form;
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &result,
                                   static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  if (length < 0) {
    throw DataError(problem(
        cat("text of ", text.size(), " bytes cannot be normalised: ", utf8proc_errmsg(length))));
  }
  form.assign(reinterpret_cast<char*>(result), static_cast<size_t>(length));
  free(result);
  return form;
}

}  // namespace

std::string unicode_form(std::string_view text, bool compose, bool compatibility) {
  const int options =
      (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatibility ? UTF8PROC_COMPAT : 0);
  std::string form;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t character = pos;
    if (effect_of(next_code_point(text, pos)) != kUnknown) continue;
    form += mapped(text.substr(begin, character - begin), options);
    form += text.substr(character, pos - character);
    begin = pos;
  }
  return form + mapped(text.substr(begin), options);
}

std::string_view form_c(std::string_view text, std::string& buffer) {
  bool changed = false;
  size_t copied = 0;      // text before it is in buffer, once changed
  size_t safe_begin = 0;  // where the part that an unsafe character belongs to begins
  size_t pos = 0;
  while (pos < text.size()) {
    // 0xCC leads U+0300.
    if (static_cast<unsigned char>(text[pos]) < 0xCC) {
      safe_begin = pos;
      pos += static_cast<unsigned char>(text[pos]) < 0x80 ? 1 : 2;
      continue;
    }
    const size_t begin = pos;
    const uint8_t effect = effect_of(next_code_point(text, pos));
    if (effect != kUnsafe) {
      safe_begin = effect == kSafe ? begin : pos;
      continue;
    }
    size_t end = pos;
    for (size_t next = pos; next < text.size(); end = next) {
      if (effect_of(next_code_point(text, next)) != kUnsafe) break;
    }
    pos = end;
    const std::string_view part = text.substr(safe_begin, end - safe_begin);
    const std::string form = mapped(part, UTF8PROC_COMPOSE);
    if (form != part) {
      if (!changed) buffer.clear();
      changed = true;
      buffer.append(text, copied, safe_begin - copied);
      buffer += form;
      copied = end;
    }
    safe_begin = end;
  }
  if (!changed) return text;
  buffer.append(text, copied);
  return buffer;
}

}  // namespace tptrain::tokenizer
