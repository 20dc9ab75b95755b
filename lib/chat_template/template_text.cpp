#include "chat_template/template_text.h"

#include <algorithm>

#include "base/text.h"

namespace tptrain::chat_template::jinja {

SourcedText stripped(const SourcedText& of, const std::string& characters, bool begin, bool end) {
  std::string_view text = of.bytes();
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
  return of.part(static_cast<size_t>(text.data() - of.bytes().data()), text.size());
}

SourcedText replaced(const SourcedText& text, const std::string& from, const SourcedText& to) {
  if (from.empty()) throw ValueError{"replacing an empty string is not built"};
  const std::string& bytes = text.bytes();
  SourcedText result;
  size_t at = 0;
  for (size_t found = bytes.find(from); found != std::string::npos; found = bytes.find(from, at)) {
    result.append_part(text, at, found - at);
    result.append(to);
    at = found + from.size();
    if (result.size() > (size_t{64} << 20)) throw ValueError{"more than 64 MiB of text"};
  }
  result.append_part(text, at, bytes.size() - at);
  return result;
}

SourcedText ascii_cased(const SourcedText& of, const std::string& name) {
  std::string text = of.bytes();
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
  if (!ascii) throw ValueError{cat(name, " of a text that is not all ASCII is not built")};
  for (size_t i = 0; i < text.size(); ++i) {
    const bool up = name == "upper" || (name == "capitalize" && i == 0);
    char& c = text[i];
    if (up && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!up && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  SourcedText cased;  // the same places
  size_t begin = 0;
  for (const SourcedText::Run& run : of.runs()) {
    cased.append_bytes(std::string_view(text).substr(begin, run.end - begin), run.source);
    begin = run.end;
  }
  cased.append_bytes(std::string_view(text).substr(begin));
  return cased;
}

std::vector<Value> split_text(const SourcedText& text, const std::string* separator, int64_t most) {
  std::vector<Value> parts;
  std::string_view rest = text.bytes();
  const auto add = [&](size_t count) {
    parts.push_back(make_text(text.part(text.size() - rest.size(), count)));
  };
  const auto may_split = [&] { return most < 0 || static_cast<int64_t>(parts.size()) < most; };
  if (separator != nullptr) {
    if (separator->empty()) throw ValueError{"split with an empty separator"};
    for (size_t at = rest.find(*separator); at != rest.npos && may_split();
         at = rest.find(*separator)) {
      add(at);
      rest.remove_prefix(at + separator->size());
    }
    add(rest.size());
    return parts;
  }
  while (true) {
    while (const size_t space = space_at_begin(rest)) rest.remove_prefix(space);
    if (rest.empty()) return parts;
    if (!may_split()) break;
    size_t end = 0;
    while (end < rest.size() && space_at_begin(rest.substr(end)) == 0) ++end;
    add(end);
    rest.remove_prefix(end);
  }
  while (const size_t space = space_at_end(rest)) rest.remove_suffix(space);
  const auto begin = static_cast<size_t>(rest.data() - text.bytes().data());
  parts.push_back(make_text(text.part(begin, rest.size())));
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

}  // namespace tptrain::chat_template::jinja
