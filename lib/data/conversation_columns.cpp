#include "data/conversation_columns.h"

#include <array>
#include <optional>
#include <utility>

#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"

namespace tptrain::data {

namespace dom = simdjson::dom;

namespace {

/// A key of who speaks, and those under which what is said stands beside it. Mails have a `from`
/// and a text too: that one has sharegpt's keys alone.
struct MessageForm {
  std::string_view role;
  std::array<std::string_view, 4> contents;
};

bool is_string_at(const dom::object& message, std::string_view key) {
  dom::element value;
  return message.at_key(key).get(value) == simdjson::SUCCESS && value.is_string();
}

bool is_there(const dom::object& message, std::string_view key) {
  dom::element value;
  return message.at_key(key).get(value) == simdjson::SUCCESS;
}

std::optional<ConversationColumn> as_conversation(const dom::key_value_pair& field,
                                                  const RowNames& names) {
  dom::array list;
  dom::object first;
  if (field.value.get(list) != simdjson::SUCCESS || list.begin() == list.end() ||
      (*list.begin()).get(first) != simdjson::SUCCESS)
    return std::nullopt;
  const std::array<MessageForm, 3> forms = {{
      {names.of("role"), {names.of("content")}},
      {"role", {"content", "value", "text", "message"}},
      {"from", {"value", "content"}},
  }};
  for (const MessageForm& form : forms) {
    if (!is_string_at(first, form.role)) continue;
    for (const std::string_view content : form.contents) {
      if (!content.empty() && is_there(first, content))
        return ConversationColumn{field.key, form.role, content};
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<ConversationColumn> conversation_columns(const dom::object& row,
                                                     const RowNames& names) {
  std::vector<ConversationColumn> columns;
  for (const dom::key_value_pair field : row) {
    if (const auto column = as_conversation(field, names)) columns.push_back(*column);
  }
  return columns;
}

std::string columns_that_read(const ConversationColumn& column, const RowNames& names) {
  const std::string key = printable_line(utf8_prefix(column.key, /*limit=*/40));
  const bool named = names.says("role") || names.says("content");
  if (!named && column.role == "from" && column.content == "value")
    return cat("{conversations: ", key, "}");
  std::vector<std::string> parts = {cat("messages: ", key)};
  for (const auto& [ours, theirs] :
       {std::pair{"role", column.role}, std::pair{"content", column.content}}) {
    if (theirs != ours || names.says(ours)) parts.push_back(cat(ours, ": ", theirs));
  }
  return cat("{", join(parts), "}");
}

}  // namespace tptrain::data
