// What is learned of a row that holds a conversation, or a prompt with its completion.
#pragma once

#include <string>

namespace tptrain::data {

/// What the assistant says; that of its last answer alone; or every token.
enum class TrainOn { assistant, last, all };
/// Throws ConfigError where it is none of them.
TrainOn train_on_of(const std::string& name);
std::string name_of(TrainOn train_on);

struct ChatOptions {
  TrainOn train_on = TrainOn::assistant;
  bool train_on_end = true;      // the token that closes an answer is learned with it
  bool special_as_text = false;  // of a prompt and its completion: text that is not trusted
};

}  // namespace tptrain::data
