// Where the assistant's answers are in a rendered conversation. What of it becomes a target, the
// tokens decide too: data/chat_rows.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "chat_template/sourced_text.h"

namespace tptrain::chat_template {

/// Bytes of a rendered text: [begin, end) is what a model has to write, [end, tail_end) what the
/// template puts behind it, the end of the turn in front.
///
///   <|im_start|>assistant\n<think>\n...\n</think>\n\nHello.<|im_end|>\n
///                          begin                           end        tail_end
struct AnswerSpan {
  int32_t message = 0;
  size_t begin = 0;
  size_t end = 0;
  size_t tail_end = 0;
};

/// One for each stretch of a message's turn, in order. It begins behind what asks for an answer
/// (`generation_prompt`, which may say more or less than the turn does), else with the first byte
/// of the message's own; what the template puts between two bytes of the message's own is part of
/// it. A template that closes a turn where the next one begins is known by its `late_closing`.
std::vector<AnswerSpan> answer_spans(const SourcedText& text,
                                     const std::optional<std::string>& generation_prompt,
                                     const std::optional<std::string>& late_closing);

}  // namespace tptrain::chat_template
