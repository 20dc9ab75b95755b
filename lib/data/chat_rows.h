// Conversations, and prompts with completions -> ids with labels: which tokens of a row are to be
// learned. A token counts by its last byte.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chat_template/chat_template.h"
#include "data/conversation.h"
#include "data/train_on.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// Under which name a checkpoint keeps the end_of_turn that its run has learned, in digits.
inline constexpr const char* kEndOfTurnExtra = "end_of_turn";

struct LabelledIds {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;  // the id, or formats::kNoLabel
  bool any_label() const;
};

/// What the template makes of the conversation, nothing added. Throws DataError: the template
/// refuses it, or the tokenizer changes the text so that a border of an answer cannot be found.
LabelledIds encode_conversation(const Conversation& conversation,
                                const chat_template::ChatTemplate& chat_template,
                                const tokenizer::Tokenizer& tokenizer, const ChatOptions& options);

/// The special token by which the template ends what the assistant says (<|im_end|>, <|eot_id|>);
/// -1 where it ends it with none. Throws as encode_conversation.
int32_t end_of_turn(const chat_template::ChatTemplate& chat_template,
                    const tokenizer::Tokenizer& tokenizer);

/// The two texts end to end, with what the tokenizer puts before and behind a text; the completion
/// and its end are learned. Throws DataError likewise.
LabelledIds encode_completion(const std::string& prompt, const std::string& completion,
                              const tokenizer::Tokenizer& tokenizer, const ChatOptions& options);

}  // namespace tptrain::data
