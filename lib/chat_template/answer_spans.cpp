#include "chat_template/answer_spans.h"

#include <algorithm>

namespace tptrain::chat_template {

namespace {

using Kind = Source::Kind;

/// How much of the end of `lead`, which stands before the first byte of an answer in its turn, is
/// no header. The header is what asks for an answer: all of it, or as much as the turn has where
/// what asks goes on (with an open <think>, or an empty one) and the turn does, too.
size_t written_of_lead(std::string_view lead, const std::optional<std::string>& generation_prompt) {
  if (!generation_prompt) return 0;
  const std::string_view asks = *generation_prompt;
  if (lead.starts_with(asks)) return lead.size() - asks.size();
  const size_t alike = static_cast<size_t>(
      std::mismatch(lead.begin(), lead.end(), asks.begin(), asks.end()).first - lead.begin());
  // They part where the turn goes on with something else, a call in place of a thought: behind a
  // line, or between two special tokens, so that it is no header of another kind.
  for (size_t at = alike; at > 0 && at < lead.size(); --at) {
    const bool tokens = lead[at - 1] == '>' && lead[at] == '<' && asks[at] == '<';
    if (lead[at - 1] == '\n' || tokens) return lead.size() - at;
  }
  return 0;
}

}  // namespace

std::vector<AnswerSpan> answer_spans(const SourcedText& text,
                                     const std::optional<std::string>& generation_prompt,
                                     const std::optional<std::string>& late_closing) {
  std::vector<AnswerSpan> spans;
  bool open = false;      // the last span may go on
  bool tail = false;      // its tail may
  size_t begin = 0;       // of the run
  size_t lead_begin = 0;  // where the turn of `lead_message` begins
  int32_t lead_message = -1;
  for (const SourcedText::Run& run : text.runs()) {
    const Source source = run.source;
    if (source.message >= 0 && source.message != lead_message) {
      lead_message = source.message;
      lead_begin = begin;
    }
    const bool same = !spans.empty() && source.message == spans.back().message;
    if (source.kind == Kind::answer && open && same) {
      spans.back().end = spans.back().tail_end = run.end;
      tail = true;
    } else if (source.kind == Kind::answer) {
      const std::string_view lead =
          std::string_view(text.bytes()).substr(lead_begin, begin - lead_begin);
      spans.push_back({.message = source.message,
                       .begin = begin - written_of_lead(lead, generation_prompt),
                       .end = run.end,
                       .tail_end = run.end});
      open = tail = true;
    } else if (source.message >= 0 && !same) {
      const bool bare = tail && begin == spans.back().end;
      if (bare && late_closing &&
          std::string_view(text.bytes()).substr(begin).starts_with(*late_closing))
        spans.back().tail_end = begin + late_closing->size();
      open = tail = false;
    } else if (source.kind == Kind::field) {
      tail = false;
    } else if (tail && source.kind == Kind::unknown && source.message >= 0) {
      // Another's words follow in this turn: up to here the model wrote, all of it.
      spans.back().end = begin;
      spans.back().tail_end = run.end;
    } else if (tail) {
      spans.back().tail_end = run.end;
    }
    begin = run.end;
  }
  return spans;
}

}  // namespace tptrain::chat_template
