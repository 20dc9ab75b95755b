#include "base/python_json.h"

#include <array>

namespace tptrain {

namespace {

constexpr std::array<std::string_view, 3> kWords = {"-Infinity", "Infinity", "NaN"};

std::string_view word_at(std::string_view text, size_t at) {
  for (const std::string_view word : kWords) {
    if (text.substr(at, word.size()) == word) return word;
  }
  return {};
}

}  // namespace

std::string quote_bare_numbers(std::string_view text, std::string_view mark) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (in_string) {
      const size_t taken = c == '\\' && at + 1 < text.size() ? 2 : 1;
      out.append(text.substr(at, taken));
      in_string = c != '"';
      at += taken;
      continue;
    }
    const bool may_begin = c == '-' || c == 'I' || c == 'N';
    const std::string_view word = may_begin ? word_at(text, at) : std::string_view();
    if (word.empty()) {
      in_string = c == '"';
      out += c;
      ++at;
      continue;
    }
    out.append("\"").append(mark).append(word).append("\"");
    at += word.size();
  }
  return out;
}

std::string bare_numbers_again(std::string text, std::string_view mark) {
  for (const std::string_view word : kWords) {
    const std::string quoted = std::string("\"").append(mark).append(word).append("\"");
    for (size_t at = text.find(quoted); at != text.npos; at = text.find(quoted, at + word.size())) {
      text.replace(at, quoted.size(), word);
    }
  }
  return text;
}

}  // namespace tptrain
