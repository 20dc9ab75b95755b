// What is learned of a row that holds a conversation, or a prompt with its completion.
#pragma once

#include "config/run_config.h"

namespace tptrain::data {

/// What the assistant says; that of its last answer alone; or every token.
using config::TrainOn;

struct ChatOptions {
  TrainOn train_on = TrainOn::assistant;
  bool train_on_end = true;      // the token that closes an answer is learned with it
  bool special_as_text = false;  // of a prompt and its completion: text that is not trusted
};

}  // namespace tptrain::data
