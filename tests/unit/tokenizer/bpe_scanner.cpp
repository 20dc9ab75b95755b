// The hand-written scanners against Oniguruma, on random text.
#include <random>

#include "base/utf8.h"
#include "support/catch.h"
#include "tokenizer/character_classes.h"
#include "tokenizer/code_points.h"
#include "tokenizer/piece_scanner.h"
#include "tokenizer/regex.h"

namespace tptrain::tokenizer {
namespace {

// Characters at the borders of the patterns, and now and then any code point at all.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> odd = {" ",
                                               "  ",
                                               "\n",
                                               "\r",
                                               "\r\n",
                                               "\t",
                                               "\xC2\xA0",
                                               "\xE3\x80\x80",
                                               "'",
                                               "'s",
                                               "'S",
                                               "'t",
                                               "'L",
                                               "'l",
                                               "'ll",
                                               "'Re",
                                               "'V",
                                               "'ve",
                                               "'\xC5\xBF",
                                               "'m",
                                               "'D",
                                               "\xE2\x84\xAA",
                                               "a",
                                               "Z",
                                               "é",
                                               "e\xCC\x81",
                                               "\xE2\x80\xA8",
                                               "1",
                                               "12",
                                               "\xD9\xA3",
                                               "½",
                                               "_",
                                               "!",
                                               "...",
                                               "日",
                                               "\xE2\x80\x8D",
                                               "\x01",
                                               "\xC2\x85",
                                               "\xCC\x81"};
  std::uniform_int_distribution<size_t> pick(0, odd.size() + 4);
  std::string text;
  for (size_t left = std::uniform_int_distribution<size_t>(1, 24)(random); left > 0; --left) {
    const size_t index = pick(random);
    if (index < odd.size()) {
      text += odd[index];
      continue;
    }
    uint32_t code_point = std::uniform_int_distribution<uint32_t>(0, 0x10FFFF)(random);
    if (index % 2 == 0) code_point %= 0x3000;
    if (code_point >= 0xD800 && code_point < 0xE000) code_point = 'x';
    if (newer_than_oniguruma(code_point)) code_point = 'y';
    append_utf8(text, code_point);
  }
  return text;
}

TEST_CASE("the scanners cut random text exactly as Oniguruma does") {
  const std::vector<uint8_t>& classes = character_classes();
  for (const char* pattern : {kGpt2Pattern, kQwen2Pattern, kLlama3Pattern}) {
    const KnownPattern known = known_pattern(pattern);
    REQUIRE(known != KnownPattern::none);
    const Regex regex(pattern, "test");
    std::mt19937 random(20261123);
    for (int i = 0; i < 60'000; ++i) {
      const std::string text = random_text(random);
      std::vector<Span> expected;
      regex.find_all(text, expected);
      std::vector<Span> found;
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = piece_end(known, text, begin, classes);
        found.push_back({begin, end, true});
        begin = end;
      }
      const bool same = std::equal(found.begin(), found.end(), expected.begin(), expected.end(),
                                   [](const Span& a, const Span& b) {
                                     return a.begin == b.begin && a.end == b.end && b.match;
                                   });
      if (!same) FAIL(pattern << " cuts differently: " << text);
    }
  }
}

TEST_CASE("every code point alone, after a letter and before a letter") {
  const std::vector<uint8_t>& classes = character_classes();
  for (const char* pattern : {kGpt2Pattern, kQwen2Pattern, kLlama3Pattern}) {
    const Regex regex(pattern, "test");
    int64_t compared = 0;
    for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
      if (code_point >= 0xD800 && code_point < 0xE000) continue;
      if (newer_than_oniguruma(code_point)) continue;
      // One block a plane beyond those that have letters is enough.
      if (code_point > 0x32000 && code_point % 0x10000 > 0x200) continue;
      std::string text = "a";
      append_utf8(text, code_point);
      text += "b ";
      append_utf8(text, code_point);
      std::vector<Span> expected;
      regex.find_all(text, expected);
      size_t begin = 0;
      for (const Span& span : expected) {
        if (span.begin != begin) FAIL("U+" << std::hex << code_point << " of " << pattern);
        begin = piece_end(known_pattern(pattern), text, begin, classes);
        if (span.end != begin) FAIL("U+" << std::hex << code_point << " of " << pattern);
      }
      ++compared;
    }
    CHECK(compared > 100000);  // Unicode 15 has 149,186 characters
  }
}

}  // namespace
}  // namespace tptrain::tokenizer
