#include "data/wild_numbers.h"

#include <cmath>
#include <cstdlib>

namespace tptrain::data {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t digits_at(std::string_view text, size_t at) {
  const size_t begin = at;
  while (at < text.size() && is_digit(text[at])) ++at;
  return at - begin;
}

/// A number by JSON's grammar that simdjson has no room for.
bool is_wild_number(std::string_view word) {
  constexpr size_t kAlwaysFits = 18;  // digits
  size_t at = word.starts_with('-') ? 1 : 0;
  const size_t whole = digits_at(word, at);
  if (whole == 0 || (whole > 1 && word[at] == '0')) return false;
  at += whole;
  bool real = false;
  if (at < word.size() && word[at] == '.') {
    const size_t digits = digits_at(word, ++at);
    if (digits == 0) return false;
    at += digits;
    real = true;
  }
  if (at < word.size() && (word[at] == 'e' || word[at] == 'E')) {
    ++at;
    if (at < word.size() && (word[at] == '+' || word[at] == '-')) ++at;
    const size_t digits = digits_at(word, at);
    if (digits == 0) return false;
    at += digits;
    real = true;
  }
  if (at != word.size()) return false;
  return real ? std::isinf(std::strtod(std::string(word).c_str(), nullptr)) : whole > kAlwaysFits;
}

bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' || c == '-' ||
         c == '.';
}

}  // namespace

bool quote_wild_numbers(std::string_view json, std::string& quoted) {
  quoted.clear();
  quoted.reserve(json.size() + 16);
  bool any = false;
  for (size_t at = 0; at < json.size();) {
    size_t end = at + 1;
    if (json[at] == '"') {
      while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
      end = end < json.size() ? end + 1 : json.size();
    } else if (is_word(json[at])) {
      while (end < json.size() && is_word(json[end])) ++end;
      const std::string_view word = json.substr(at, end - at);
      if (word == "NaN" || word == "Infinity" || word == "-Infinity" || is_wild_number(word)) {
        quoted += '"';
        quoted += word;
        quoted += '"';
        at = end;
        any = true;
        continue;
      }
    }
    quoted += json.substr(at, end - at);
    at = end;
  }
  return any;
}

}  // namespace tptrain::data
