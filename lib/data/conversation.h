// A row that holds a conversation: what a chat template renders. Knows no tokens.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace tptrain::data {

struct Conversation {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  nlohmann::ordered_json tools = {};  // null where there are none
  int32_t first_answer = 0;           // answers of earlier messages are part of the prompt
  bool from_instruction = false;      // of a row {"instruction", "output", ...}
};

}  // namespace tptrain::data
