// A value as JSON text, as Python's json.dumps writes it: what `tojson` gives.
#include <string>

#include "base/hex.h"
#include "base/text.h"
#include "chat_template/template_value.h"

namespace tptrain::chat_template::jinja {

namespace {

/// One character of a JSON string, escaped where it must be.
std::string json_character(char c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (static_cast<unsigned char>(c) >= 0x20) return std::string(1, c);
  return "\\u" + to_hex(static_cast<unsigned char>(c), 4);
}

bool is_escaped(char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20; }

void append_json_string(const SourcedText& text, SourcedText& out) {
  out.append("\"");
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    size_t end = at;
    while (end < bytes.size() && !is_escaped(bytes[end])) ++end;
    out.append_part(text, at, end - at);
    if (end < bytes.size()) out.append_bytes(json_character(bytes[end]), text.source_at(end));
    at = end + 1;
  }
  out.append("\"");
}

void append_json(const Value& value, int indent, int level, SourcedText& out) {
  const auto line = [&](int at_level) {
    if (indent < 0) return;
    out.append("\n" + std::string(static_cast<size_t>(indent) * at_level, ' '));
  };
  const char* separator = indent < 0 ? ", " : ",";
  if (value.is<Text>()) {
    append_json_string(value.sourced(), out);
  } else if (value.is<None>()) {
    out.append("null");
  } else if (const bool* flag = value.as<bool>()) {
    out.append(*flag ? "true" : "false");
  } else if (const List* list = value.as<List>();
             list != nullptr && (*list)->shape <= ListData::Shape::tuple) {
    out.append("[");
    const char* before = "";
    for (const Value& item : (*list)->items) {
      out.append(before);
      before = separator;
      line(level + 1);
      append_json(item, indent, level + 1, out);
    }
    if (!(*list)->items.empty()) line(level);
    out.append("]");
  } else if (const Dict* dict = value.as<Dict>()) {
    out.append("{");
    const char* before = "";
    for (const auto& [key, item] : (*dict)->items) {
      out.append(before);
      before = separator;
      line(level + 1);
      append_json_string(key, out);
      out.append(": ");
      append_json(item, indent, level + 1, out);
    }
    if (!(*dict)->items.empty()) line(level);
    out.append("}");
  } else if (value.is_number()) {
    out.append(text_of(value));
  } else {
    throw ValueError{cat(kind_of(value), " has no JSON")};
  }
}

}  // namespace

SourcedText json_of(const Value& value, int indent) {
  SourcedText out;
  append_json(value, indent, 0, out);
  return out;
}

}  // namespace tptrain::chat_template::jinja
