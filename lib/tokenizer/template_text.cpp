#include "tokenizer/template_text.h"

#include <algorithm>

#include "base/text.h"

namespace tptrain::tokenizer::jinja {

std::string stripped(std::string_view text, const std::string& characters, bool begin, bool end) {
  const std::vector<std::string_view> set = characters_of(characters);
  const auto in_set = [&](std::string_view part) -> size_t {
    for (const std::string_view character : set) {
      if (part.starts_with(character)) return character.size();
    }
    return 0;
  };
  const auto in_set_at_end = [&](std::string_view part) -> size_t {
    for (const std::string_view character : set) {
      if (part.ends_with(character)) return character.size();
    }
    return 0;
  };
  const bool spaces = characters.empty();
  while (begin) {
    const size_t length = spaces ? space_at_begin(text) : in_set(text);
    if (length == 0) break;
    text.remove_prefix(length);
  }
  while (end) {
    const size_t length = spaces ? space_at_end(text) : in_set_at_end(text);
    if (length == 0) break;
    text.remove_suffix(length);
  }
  return std::string(text);
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) throw ValueError{"replacing an empty string is not built"};
  std::string result;
  size_t at = 0;
  for (size_t found = text.find(from); found != std::string::npos; found = text.find(from, at)) {
    result.append(text, at, found - at);
    result += to;
    at = found + from.size();
    if (result.size() > (size_t{64} << 20)) throw ValueError{"more than 64 MiB of text"};
  }
  return result.append(text, at);
}

std::string ascii_cased(std::string text, const std::string& name) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
  if (!ascii) throw ValueError{cat(name, " of a text that is not all ASCII is not built")};
  for (size_t i = 0; i < text.size(); ++i) {
    const bool up = name == "upper" || (name == "capitalize" && i == 0);
    char& c = text[i];
    if (up && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!up && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::vector<Value> split_text(const std::string& text, const std::string* separator, int64_t most) {
  std::vector<Value> parts;
  std::string_view rest = text;
  const auto may_split = [&] { return most < 0 || static_cast<int64_t>(parts.size()) < most; };
  if (separator != nullptr) {
    if (separator->empty()) throw ValueError{"split with an empty separator"};
    for (size_t at = rest.find(*separator); at != rest.npos && may_split();
         at = rest.find(*separator)) {
      parts.push_back(make_text(std::string(rest.substr(0, at))));
      rest.remove_prefix(at + separator->size());
    }
    parts.push_back(make_text(std::string(rest)));
    return parts;
  }
  while (true) {
    while (const size_t space = space_at_begin(rest)) rest.remove_prefix(space);
    if (rest.empty()) return parts;
    if (!may_split()) break;
    size_t end = 0;
    while (end < rest.size() && space_at_begin(rest.substr(end)) == 0) ++end;
    parts.push_back(make_text(std::string(rest.substr(0, end))));
    rest.remove_prefix(end);
  }
  parts.push_back(make_text(stripped(rest, "", false, true)));
  return parts;
}

const std::string& text_argument(const std::vector<Value>& arguments, size_t i,
                                 const std::string& of) {
  if (i >= arguments.size() || !arguments[i].is<Text>()) {
    throw ValueError{cat(of, " takes a string as argument ", i + 1, ", got ",
                         i < arguments.size() ? kind_of(arguments[i]) : "nothing")};
  }
  return arguments[i].text();
}

void check_count(const std::vector<Value>& arguments, size_t least, size_t most,
                 const std::string& of) {
  if (arguments.size() < least || arguments.size() > most) {
    throw ValueError{cat(of, " with ", arguments.size(), " arguments is not built")};
  }
}

void no_named(const Arguments& arguments, const std::string& of) {
  if (arguments.named.empty()) return;
  throw ValueError{cat("the argument ", arguments.named[0].first, " of ", of, " is not built")};
}

}  // namespace tptrain::tokenizer::jinja
