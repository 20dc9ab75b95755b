#include "data/conversation_rows.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "formats/strict_json.h"

namespace tptrain::data {

namespace dom = simdjson::dom;
using nlohmann::ordered_json;

namespace {

ordered_json json_of(const dom::element& value) {
  switch (value.type()) {
    case dom::element_type::ARRAY: {
      const dom::array items = value.get_array().value();
      ordered_json list = ordered_json::array();
      for (const dom::element item : items) list.push_back(json_of(item));
      return list;
    }
    case dom::element_type::OBJECT: {
      const dom::object fields = value.get_object().value();
      ordered_json object = ordered_json::object();
      for (const dom::key_value_pair field : fields) {
        object[std::string(field.key)] = json_of(field.value);
      }
      return object;
    }
    case dom::element_type::INT64:
      return value.get_int64().value();
    case dom::element_type::UINT64:
      return value.get_uint64().value();
    case dom::element_type::DOUBLE:
      return value.get_double().value();
    case dom::element_type::STRING:
      return std::string(value.get_string().value());
    case dom::element_type::BOOL:
      return value.get_bool().value();
    case dom::element_type::NULL_VALUE:
      break;
  }
  return nullptr;
}

/// A row, or a message within one, by our names of what it holds.
struct Fields {
  const dom::object& object;
  const RowNames& names;
  const RefuseRow& refuse;

  std::optional<dom::element> member(std::string_view ours) const {
    dom::element value;
    if (object.at_key(names.of(ours)).get(value) != simdjson::SUCCESS || value.is_null())
      return std::nullopt;
    return value;
  }
  std::optional<std::string> text(std::string_view ours) const {
    const auto value = member(ours);
    if (!value) return std::nullopt;
    std::string_view text;
    if (value->get(text) != simdjson::SUCCESS) {
      refuse(cat("\"", names.of(ours), "\" is no string"), "be a string", "Write it in quotes.");
    }
    return std::string(text);
  }
  /// The first of several that the row has; the others are other trainers' names of the first.
  std::optional<std::string> text(std::string_view ours, std::string_view other) const {
    auto found = text(ours);
    return found || names.says(ours) ? found : text(other);
  }
};

ordered_json message(std::string_view role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

/// [{"type": "text", "text": "..."}] is the text: many templates take nothing else, and those that
/// take parts write the same of either.
ordered_json plain_content(const ordered_json& content) {
  if (!content.is_array() || content.size() != 1 || !content[0].is_object()) return content;
  const ordered_json& part = content[0];
  const auto type = part.find("type");
  const auto text = part.find("text");
  const bool is_text = type != part.end() && *type == "text" && text != part.end();
  return is_text && text->is_string() ? *text : content;
}

/// The ways in which other trainers name what a message holds: what to do about them.
std::string remedy_of_message(const ordered_json& one, std::string_view key) {
  if (one.is_object() && one.contains("from") && one.contains("value"))
    return cat("Set data.columns: {conversations: ", key, "}.");
  return "Write it as {\"role\": \"user\", \"content\": \"...\"}, or name its keys: data.columns: "
         "{role: KEY, content: KEY}.";
}

struct SharegptRole {
  std::string_view from;
  std::string_view role;
};
constexpr std::array kSharegptRoles = {
    SharegptRole{"human", "user"},        SharegptRole{"user", "user"},
    SharegptRole{"gpt", "assistant"},     SharegptRole{"assistant", "assistant"},
    SharegptRole{"chatgpt", "assistant"}, SharegptRole{"bing", "assistant"},
    SharegptRole{"bard", "assistant"},    SharegptRole{"model", "assistant"},
    SharegptRole{"system", "system"},     SharegptRole{"tool", "tool"},
    SharegptRole{"observation", "tool"},  SharegptRole{"function_response", "tool"},
};

// LLaMA-Factory's: the assistant's calls, as the JSON of {"name", "arguments"} or of a list of
// them.
constexpr std::string_view kCalls = "function_call";

/// Who `from` is: as data.roles says, else by the words that are known everywhere; "" where neither
/// says.
std::string_view role_in_sharegpt(std::string_view from, const RowNames& names) {
  const std::string_view said = names.role_of(from);
  return said.empty() ? role_of_word(from) : said;
}

/// The message under the names that templates know: a field that columns name takes its place.
/// Arrow writes every key that any message has, null where a message has none: templates look
/// whether a key is there.
ordered_json plain_message(const ordered_json& one, const RowNames& names) {
  ordered_json kept = ordered_json::object();
  for (const auto& [key, field] : one.items()) {
    const bool is_role = key == names.of("role");
    const bool is_content = key == names.of("content");
    if (is_role) {
      const auto& from = field.get_ref<const std::string&>();
      const std::string_view role =
          names.says("role") ? role_in_sharegpt(from, names) : names.role_of(from);
      kept["role"] = role.empty() ? from : std::string(role);
    } else if (is_content) {
      kept["content"] = plain_content(field);
    } else if (!field.is_null() && key != "role" && key != "content") {
      kept[key] = field;
    }
  }
  return kept;
}

/// Messages as templates take them; `ours` is the column that holds them.
ordered_json plain_messages(const Fields& row, const dom::element& value, std::string_view ours) {
  const std::string_view key = row.names.of(ours);
  if (!value.is_array()) {
    row.refuse(cat("\"", key, "\" is no list"), "be a list of messages",
               "Write it as [{\"role\": \"user\", \"content\": \"...\"}, ...].");
  }
  const std::string role_key(row.names.of("role"));
  ordered_json messages = json_of(value);
  for (size_t i = 0; i < messages.size(); ++i) {
    ordered_json& one = messages[i];
    const bool has_role = one.is_object() && one.contains(role_key) && one[role_key].is_string();
    if (!has_role) {
      row.refuse(
          cat(key, "[", i, "] has no ", role_key == "role" ? "role" : cat("\"", role_key, "\"")),
          cat("be an object with a string \"", role_key, "\""), remedy_of_message(one, key));
    }
    one = plain_message(one, row.names);
  }
  return messages;
}

/// The assistant's message that makes these calls; null where `value` is none.
ordered_json message_of_calls(const std::string& value) {
  ordered_json calls;
  try {
    calls = formats::parse_strict_ordered_json(value, "a call");
  } catch (const DataError&) {
    return nullptr;
  }
  if (calls.is_object()) calls = ordered_json::array({calls});
  if (!calls.is_array() || calls.empty()) return nullptr;
  ordered_json made = ordered_json::array();
  for (const ordered_json& call : calls) {
    const bool is_call = call.is_object() && call.contains("name") && call["name"].is_string() &&
                         call.contains("arguments");
    if (!is_call) return nullptr;
    made.push_back({{"type", "function"}, {"function", call}});
  }
  return {{"role", "assistant"}, {"content", ""}, {"tool_calls", made}};
}

ordered_json sharegpt_messages(const Fields& row, const dom::element& value) {
  const std::string_view key = row.names.of("conversations");
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS) {
    row.refuse(cat("\"", key, "\" is no list"), "be a list of messages",
               "Write it as [{\"from\": \"human\", \"value\": \"...\"}, ...].");
  }
  if (row.names.says("role") || row.names.says("content"))
    return plain_messages(row, value, "conversations");
  ordered_json messages = ordered_json::array();
  for (const dom::element element : list) {
    dom::object object;
    const auto at = [&] { return cat(key, "[", messages.size(), "]"); };
    if (element.get(object) != simdjson::SUCCESS) {
      row.refuse(cat(at(), " is no object"), "have \"from\" and \"value\"",
                 "Write it as {\"from\": \"human\", \"value\": \"...\"}.");
    }
    const Fields one = {object, row.names, row.refuse};
    if (one.member("role")) return plain_messages(row, value, "conversations");
    const auto from = one.text("from");
    const auto content = one.text("value");
    if (!from || !content) {
      row.refuse(cat(at(), " has no \"", from ? "value" : "from", "\""),
                 "have \"from\" and \"value\"",
                 "Write it as {\"from\": \"human\", \"value\": \"...\"}, or name its keys: "
                 "data.columns: {role: KEY, content: KEY}.");
    }
    const std::string_view role = role_in_sharegpt(*from, row.names);
    if (role.empty() && *from == kCalls) {
      ordered_json calls = message_of_calls(*content);
      if (calls.is_null()) {
        row.refuse(cat(at(), " is from \"", kCalls, "\" and is no call"),
                   "hold the JSON of {\"name\", \"arguments\"}, or of a list of them",
                   "Where it is text that the assistant writes, set data.roles: {assistant: "
                   "function_call}.");
      }
      messages.push_back(std::move(calls));
    } else if (role.empty()) {
      const std::string word = printable_line(utf8_prefix(*from, /*limit=*/40));
      row.refuse(
          cat(at(), " is from \"", word, "\""),
          "be from human, gpt, system or tool, or from whom data.roles names",
          cat("Say who that is: data.roles: {assistant: ", word, "}, or user, system, tool."));
    } else {
      messages.push_back(message(role, *content));
    }
    for (const std::string_view mark : {"weight", "train", "training"}) {  // of what is learned
      if (const auto marked = one.member(mark))
        messages.back()[std::string(mark)] = json_of(*marked);
    }
  }
  return messages;
}

/// The turns before a row's own, as LLaMA-Factory has them: [[question, answer], ...].
void add_history(const Fields& row, ordered_json& messages) {
  const auto history = row.member("history");
  if (!history) return;
  const auto check = [&](bool holds) {
    if (holds) return;
    row.refuse(cat("\"", row.names.of("history"), "\" is no list of pairs"),
               "be a list of questions with their answers",
               "Write it as [[\"question\", \"answer\"], ...].");
  };
  check(history->is_array());
  for (const ordered_json& turn : json_of(*history)) {
    check(turn.is_array() && turn.size() == 2 && turn[0].is_string() && turn[1].is_string());
    messages.push_back(message("user", turn[0].get<std::string>()));
    messages.push_back(message("assistant", turn[1].get<std::string>()));
  }
}

Conversation alpaca(const Fields& row) {
  Conversation conversation;
  conversation.from_instruction = true;
  const auto output = row.text("output", "response");
  if (!output) {
    row.refuse(cat("there is \"", row.names.of("instruction"), "\" and no \"",
                   row.names.of("output"), "\""),
               "have both: {\"instruction\": \"...\", \"input\": \"...\", \"output\": \"...\"}",
               "Name the column that holds the answer: data.columns: {output: KEY}.");
  }
  const std::string question = row.text("instruction").value_or("");
  const std::string input = row.text("input", "context").value_or("");
  add_history(row, conversation.messages);
  conversation.messages.push_back(
      message("user", input.empty() ? question : cat(question, "\n\n", input)));
  conversation.messages.push_back(message("assistant", *output));
  return conversation;
}

/// A list, or the text of one: data sets of tables keep it so.
ordered_json tools_of(const Fields& row) {
  const auto value = row.member("tools");
  if (!value) return nullptr;
  ordered_json tools = json_of(*value);
  if (tools.is_string()) {
    try {
      tools = formats::parse_strict_ordered_json(tools.get<std::string>(), "tools");
    } catch (const DataError&) {
      tools = nullptr;
    }
  }
  if (!tools.is_array()) {
    row.refuse(cat("\"", row.names.of("tools"), "\" is no list"), "be a list of tools",
               "Write it as [{\"type\": ...}, ...].");
  }
  return tools.empty() ? ordered_json(nullptr) : tools;
}

std::optional<Conversation> without_system(const Fields& row) {
  Conversation conversation;
  const auto column = [&](std::string_view ours) {
    return row.names.may_be(ours) ? row.member(ours) : std::nullopt;
  };
  if (const auto messages = column("messages")) {
    conversation.messages = plain_messages(row, *messages, "messages");
    return conversation;
  }
  if (const auto conversations = column("conversations")) {
    conversation.messages = sharegpt_messages(row, *conversations);
    return conversation;
  }
  const auto prompt = column("prompt");
  const auto completion = column("completion");
  if (prompt && completion && prompt->is_array()) {
    conversation.messages = plain_messages(row, *prompt, "prompt");
    conversation.first_answer = static_cast<int32_t>(conversation.messages.size());
    for (const auto& answer : plain_messages(row, *completion, "completion")) {
      conversation.messages.push_back(answer);
    }
    return conversation;
  }
  if (column("instruction")) return alpaca(row);
  return std::nullopt;
}

bool is_filled_list(const std::optional<dom::element>& value) {
  dom::array list;
  return value && value->get(list) == simdjson::SUCCESS && list.size() > 0;
}

bool is_text(const std::optional<dom::element>& value) { return value && value->is_string(); }

}  // namespace

std::string_view role_of_word(std::string_view word) {
  const auto known = std::find_if(kSharegptRoles.begin(), kSharegptRoles.end(),
                                  [&](const SharegptRole& role) { return role.from == word; });
  return known == kSharegptRoles.end() ? std::string_view() : known->role;
}

bool is_conversation_beside_text(const dom::object& object, const RowNames& names) {
  const RefuseRow nobody = [](const std::string&, const std::string&, const std::string&) {};
  const Fields row = {object, names, nobody};
  if (is_filled_list(row.member("messages"))) return true;
  if (is_filled_list(row.member("conversations"))) return true;
  const auto prompt = row.member("prompt");
  const auto completion = row.member("completion");
  if (is_text(prompt) && is_text(completion)) return true;
  if (is_filled_list(prompt) && is_filled_list(completion)) return true;
  return is_text(row.member("instruction")) &&
         (is_text(row.member("output")) || is_text(row.member("response")));
}

std::optional<Conversation> conversation_of(const dom::object& object, const RowNames& names,
                                            const RefuseRow& refuse) {
  const Fields row = {object, names, refuse};
  std::optional<Conversation> conversation = without_system(row);
  if (!conversation) return conversation;
  conversation->tools = tools_of(row);
  const auto system = row.member("system");
  const bool has_one =
      !conversation->messages.empty() && conversation->messages.front()["role"] == "system";
  if (system && system->is_string() && !has_one) {
    const std::string text(system->get_string().value());
    if (!text.empty()) {
      conversation->messages.insert(conversation->messages.begin(), message("system", text));
      if (conversation->first_answer > 0) ++conversation->first_answer;
    }
  }
  return conversation;
}

}  // namespace tptrain::data
