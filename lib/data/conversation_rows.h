// The rows that hold conversations, in the forms that data sets have them in, as one: messages with
// role and content. Private to this folder; included where simdjson is.
#pragma once

#include <simdjson.h>

#include <functional>
#include <optional>
#include <string>

#include "data/conversation.h"
#include "data/row_names.h"

namespace tptrain::data {

/// Throws an error that names the row: what was found, what it must be, what to do.
using RefuseRow = std::function<void(std::string, std::string, std::string)>;

///   {"messages": [{"role", "content", ...}], "tools": [...]}
///   {"conversations": [{"from": "human", "value"}], "system": "..."}    sharegpt
///   {"prompt": [messages], "completion": [messages]}                    answers of completion
///   count
///   {"instruction", "input", "output", "system", "history": [["question", "answer"]]}   alpaca,
///   with LLaMA-Factory's earlier turns; "response" and "context" as dolly names output and input
/// by the names that the columns have; where those of a message are named, who speaks may be said
/// as in sharegpt. None where the row is none of them; what else it holds is ignored.
std::optional<Conversation> conversation_of(const simdjson::dom::object& row, const RowNames& names,
                                            const RefuseRow& refuse);

/// Who a word of sharegpt's means to a template: "human" the user, "gpt" the assistant; "" where it
/// is none of those words.
std::string_view role_of_word(std::string_view word);

/// Whether a row is, whole, one of these, or a prompt with its completion: then a "text" beside it
/// is the same once more, as somebody rendered it.
bool is_conversation_beside_text(const simdjson::dom::object& row, const RowNames& names);

}  // namespace tptrain::data
