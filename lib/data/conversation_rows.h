// The rows that hold conversations, in the forms that data sets have them in, as one: messages with
// role and content. Private to this folder; included where simdjson is.
#pragma once

#include <simdjson.h>

#include <functional>
#include <optional>
#include <string>

#include "data/conversation.h"

namespace tptrain::data {

/// Throws an error that names the row: what was found, what it must be, what to do.
using RefuseRow = std::function<void(std::string, std::string, std::string)>;

///   {"messages": [{"role", "content", ...}], "tools": [...]}
///   {"conversations": [{"from": "human", "value"}], "system": "..."}    sharegpt
///   {"prompt": [messages], "completion": [messages]}                    answers of completion
///   count
///   {"instruction", "input", "output"}                                  alpaca
/// None where the row is none of them; what else it holds is ignored.
std::optional<Conversation> conversation_of(const simdjson::dom::object& row,
                                            const RefuseRow& refuse);

}  // namespace tptrain::data
