// Which columns of a row look like a conversation, by whatever name. Knows no kind of row.
#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>
#include <vector>

#include "data/row_names.h"

namespace tptrain::data {

/// A list whose first element says who speaks and what is said.
struct ConversationColumn {
  std::string_view key;      // as the file has it
  std::string_view role;     // within its first message: the key of who speaks
  std::string_view content;  // and of what is said
};

/// In the order of the row.
std::vector<ConversationColumn> conversation_columns(const simdjson::dom::object& row,
                                                     const RowNames& names);

/// What reads it, as data.columns takes it: "{messages: dialog, content: text}".
std::string columns_that_read(const ConversationColumn& column, const RowNames& names);

}  // namespace tptrain::data
