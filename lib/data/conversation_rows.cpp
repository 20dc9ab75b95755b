#include "data/conversation_rows.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/text.h"
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

std::optional<dom::element> member(const dom::object& object, std::string_view key) {
  dom::element value;
  if (object.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

std::optional<std::string> text_member(const dom::object& object, std::string_view key,
                                       const RefuseRow& refuse) {
  const auto value = member(object, key);
  if (!value) return std::nullopt;
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) {
    refuse(cat("\"", key, "\" is no string"), "be a string", "Write it in quotes.");
  }
  return std::string(text);
}

ordered_json message(const char* role, const std::string& content) {
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
std::string remedy_of_message(const ordered_json& one) {
  if (one.is_object() && one.contains("from") && one.contains("value")) {
    return "Rename the list of messages to \"conversations\".";
  }
  return "Write it as {\"role\": \"user\", \"content\": \"...\"}.";
}

/// Messages as templates take them. Arrow writes every key that any message has, null where a
/// message has none: templates look whether a key is there.
ordered_json plain_messages(const dom::element& value, std::string_view key,
                            const RefuseRow& refuse) {
  if (!value.is_array()) {
    refuse(cat("\"", key, "\" is no list"), "be a list of messages",
           "Write it as [{\"role\": \"user\", \"content\": \"...\"}, ...].");
  }
  ordered_json messages = json_of(value);
  for (size_t i = 0; i < messages.size(); ++i) {
    ordered_json& one = messages[i];
    const bool has_role = one.is_object() && one.contains("role") && one["role"].is_string();
    if (!has_role) {
      refuse(cat(key, "[", i, "] has no role"), "be an object with a string \"role\"",
             remedy_of_message(one));
    }
    ordered_json kept = ordered_json::object();
    for (const auto& [name, field] : one.items()) {
      if (!field.is_null() || name == "content") {
        kept[name] = name == "content" ? plain_content(field) : field;
      }
    }
    one = std::move(kept);
  }
  return messages;
}

struct SharegptRole {
  std::string_view from;
  const char* role;
};
constexpr std::array kSharegptRoles = {
    SharegptRole{"human", "user"},        SharegptRole{"user", "user"},
    SharegptRole{"gpt", "assistant"},     SharegptRole{"assistant", "assistant"},
    SharegptRole{"chatgpt", "assistant"}, SharegptRole{"bing", "assistant"},
    SharegptRole{"bard", "assistant"},    SharegptRole{"model", "assistant"},
    SharegptRole{"system", "system"},     SharegptRole{"tool", "tool"},
    SharegptRole{"observation", "tool"},  SharegptRole{"function_response", "tool"},
};

ordered_json sharegpt_messages(const dom::element& value, const RefuseRow& refuse) {
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS) {
    refuse("\"conversations\" is no list", "be a list of messages",
           "Write it as [{\"from\": \"human\", \"value\": \"...\"}, ...].");
  }
  ordered_json messages = ordered_json::array();
  for (const dom::element element : list) {
    dom::object object;
    const auto at = [&] { return cat("conversations[", messages.size(), "]"); };
    if (element.get(object) != simdjson::SUCCESS) {
      refuse(cat(at(), " is no object"), "have \"from\" and \"value\"",
             "Write it as {\"from\": \"human\", \"value\": \"...\"}.");
    }
    if (member(object, "role")) return plain_messages(value, "conversations", refuse);
    const auto from = text_member(object, "from", refuse);
    const auto content = text_member(object, "value", refuse);
    if (!from || !content) {
      refuse(cat(at(), " has no \"", from ? "value" : "from", "\""), "have \"from\" and \"value\"",
             "Write it as {\"from\": \"human\", \"value\": \"...\"}.");
    }
    const auto known = std::find_if(kSharegptRoles.begin(), kSharegptRoles.end(),
                                    [&](const SharegptRole& role) { return role.from == *from; });
    if (known == kSharegptRoles.end()) {
      refuse(cat(at(), " is from \"", *from, "\""), "be from human, gpt, system or tool",
             "Write the conversation as \"messages\" with the roles that the template knows.");
    }
    messages.push_back(message(known->role, *content));
    for (const std::string_view mark : {"weight", "train", "training"}) {  // of what is learned
      if (const auto marked = member(object, mark))
        messages.back()[std::string(mark)] = json_of(*marked);
    }
  }
  return messages;
}

/// The turns before a row's own, as LLaMA-Factory has them: [[question, answer], ...].
void add_history(const dom::object& row, ordered_json& messages, const RefuseRow& refuse) {
  const auto history = member(row, "history");
  if (!history) return;
  const auto check = [&](bool holds) {
    if (holds) return;
    refuse("\"history\" is no list of pairs", "be a list of questions with their answers",
           "Write it as [[\"question\", \"answer\"], ...].");
  };
  check(history->is_array());
  for (const ordered_json& turn : json_of(*history)) {
    check(turn.is_array() && turn.size() == 2 && turn[0].is_string() && turn[1].is_string());
    messages.push_back(message("user", turn[0].get<std::string>()));
    messages.push_back(message("assistant", turn[1].get<std::string>()));
  }
}

/// The first of several names that the row has.
std::optional<std::string> text_of(const dom::object& row,
                                   std::initializer_list<std::string_view> keys,
                                   const RefuseRow& refuse) {
  for (const std::string_view key : keys) {
    if (auto text = text_member(row, key, refuse)) return text;
  }
  return std::nullopt;
}

Conversation alpaca(const dom::object& row, const RefuseRow& refuse) {
  Conversation conversation;
  conversation.from_instruction = true;
  const auto output = text_of(row, {"output", "response"}, refuse);
  if (!output) {
    refuse("there is \"instruction\" and no \"output\"",
           "have both: {\"instruction\": \"...\", \"input\": \"...\", \"output\": \"...\"}",
           "Rename the key that holds the answer.");
  }
  const auto instruction = text_member(row, "instruction", refuse);
  const std::string input = text_of(row, {"input", "context"}, refuse).value_or("");
  const std::string question = instruction.value_or("");
  add_history(row, conversation.messages, refuse);
  conversation.messages.push_back(
      message("user", input.empty() ? question : cat(question, "\n\n", input)));
  conversation.messages.push_back(message("assistant", *output));
  return conversation;
}

/// A list, or the text of one: data sets of tables keep it so.
ordered_json tools_of(const dom::object& row, const RefuseRow& refuse) {
  const auto value = member(row, "tools");
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
    refuse("\"tools\" is no list", "be a list of tools", "Write it as [{\"type\": ...}, ...].");
  }
  return tools.empty() ? ordered_json(nullptr) : tools;
}

std::optional<Conversation> without_system(const dom::object& row, const RefuseRow& refuse) {
  Conversation conversation;
  if (const auto messages = member(row, "messages")) {
    conversation.messages = plain_messages(*messages, "messages", refuse);
    return conversation;
  }
  if (const auto conversations = member(row, "conversations")) {
    conversation.messages = sharegpt_messages(*conversations, refuse);
    return conversation;
  }
  const auto prompt = member(row, "prompt");
  const auto completion = member(row, "completion");
  if (prompt && completion && prompt->is_array()) {
    conversation.messages = plain_messages(*prompt, "prompt", refuse);
    conversation.first_answer = static_cast<int32_t>(conversation.messages.size());
    for (const auto& answer : plain_messages(*completion, "completion", refuse)) {
      conversation.messages.push_back(answer);
    }
    return conversation;
  }
  if (member(row, "instruction")) return alpaca(row, refuse);
  return std::nullopt;
}

bool is_filled_list(const std::optional<dom::element>& value) {
  dom::array list;
  return value && value->get(list) == simdjson::SUCCESS && list.size() > 0;
}

bool is_text(const std::optional<dom::element>& value) { return value && value->is_string(); }

}  // namespace

bool is_conversation_beside_text(const dom::object& row) {
  if (is_filled_list(member(row, "messages"))) return true;
  if (is_filled_list(member(row, "conversations"))) return true;
  const auto prompt = member(row, "prompt");
  const auto completion = member(row, "completion");
  if (is_text(prompt) && is_text(completion)) return true;
  if (is_filled_list(prompt) && is_filled_list(completion)) return true;
  return is_text(member(row, "instruction")) &&
         (is_text(member(row, "output")) || is_text(member(row, "response")));
}

std::optional<Conversation> conversation_of(const dom::object& row, const RefuseRow& refuse) {
  std::optional<Conversation> conversation = without_system(row, refuse);
  if (!conversation) return conversation;
  conversation->tools = tools_of(row, refuse);
  const auto system = member(row, "system");
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
