#include "data/unknown_row.h"

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "data/conversation_columns.h"
#include "data/jsonl_rows.h"

namespace tptrain::data {

namespace dom = simdjson::dom;

namespace {

std::string shown_key(std::string_view key) { return printable_line(utf8_prefix(key, 40)); }

/// ", but "question" and "answer"": the first keys of a row.
std::string keys_instead(const dom::object& object) {
  constexpr size_t kMost = 8;
  std::vector<std::string> keys;
  for (const dom::key_value_pair field : object) {
    if (keys.size() == kMost) {
      keys.emplace_back("...");
      break;
    }
    keys.push_back(cat("\"", shown_key(field.key), "\""));
  }
  return keys.empty() ? "" : cat(", but ", join(keys));
}

std::string_view first_text_key(const dom::object& object, std::span<const std::string_view> keys) {
  for (const std::string_view key : keys) {
    dom::element value;
    if (object.at_key(key).get(value) == simdjson::SUCCESS && value.is_string()) return key;
  }
  return {};
}

/// Of a row of no known kind: which names make it one.
std::string remedy_of_keys(const dom::object& object, const RowNames& names) {
  const std::vector<ConversationColumn> conversations = conversation_columns(object, names);
  if (!conversations.empty())
    return cat("Set data.columns: ", columns_that_read(conversations.front(), names), ".");
  constexpr std::array<std::string_view, 6> kQuestions = {"question", "query",   "prompt",
                                                          "problem",  "request", "input"};
  constexpr std::array<std::string_view, 6> kAnswers = {"answer",     "response", "output",
                                                        "completion", "solution", "reply"};
  const std::string_view question = first_text_key(object, kQuestions);
  const std::string_view answer = first_text_key(object, kAnswers);
  if (question.empty() || answer.empty())
    return "Name the column of the text, data.columns: {text: KEY}, or of the messages, {messages: "
           "KEY} (docs/data.md).";
  return cat("To train on \"", answer, "\" as the answer to \"", question,
             "\", set data.columns: {instruction: ", question, ", output: ", answer, "}.");
}

/// `there is no "dialog" (messages)`: of the columns that data.columns names. None where the row
/// has them.
std::vector<std::string> missing_columns(const dom::object& object, const RowNames& names) {
  std::vector<std::string> missing;
  for (const std::string_view ours : names.required()) {
    const std::string_view theirs = names.of(ours);
    dom::element value;
    if (object.at_key(theirs).get(value) == simdjson::SUCCESS) continue;
    missing.push_back(theirs == ours ? cat("\"", ours, "\"")
                                     : cat("\"", shown_key(theirs), "\" (", ours, ")"));
  }
  return missing;
}

}  // namespace

Problem unknown_row(const dom::object& row, const RowNames& names) {
  const std::vector<std::string> missing = missing_columns(row, names);
  if (!missing.empty()) {
    return problem(cat("there is no ", join(missing), keys_instead(row)))
        .must(cat("have the columns that are named: {", names.named_columns(), "}"))
        .remedy(
            "Set data.columns to the names that the file has, those of other files by the "
            "columns of their own entry in the list (docs/data.md).");
  }
  if (!names.required().empty()) {
    return problem("what the named columns hold is neither text nor a list of messages")
        .must(cat("be a row by the columns that are named: {", names.named_columns(), "}"))
        .remedy("A prompt and its completion are both texts, or both lists of messages.");
  }
  dom::element chosen;
  if (row.at_key("chosen").get(chosen) == simdjson::SUCCESS) {
    return problem("the row is a preference pair: it has \"chosen\"")
        .must(must_be_a_row())
        .remedy(cat("Training on preferences (DPO) is not built; to train on what was chosen, set "
                    "data.columns: {",
                    chosen.is_array() ? "messages" : "completion", ": chosen}."));
  }
  return problem(cat("there is neither \"", names.of(kTextKey), "\" nor \"", names.of("input_ids"),
                     "\"", keys_instead(row)))
      .must(must_be_a_row())
      .remedy(remedy_of_keys(row, names));
}

}  // namespace tptrain::data
