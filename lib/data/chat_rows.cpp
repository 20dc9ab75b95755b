#include "data/chat_rows.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "chat_template/answer_spans.h"
#include "data/align_tokens.h"
#include "data/conversation_rows.h"
#include "formats/token_file.h"

namespace tptrain::data {

namespace {

using chat_template::AnswerSpan;

// Templates that write today's date would write another one each day: these tokens are made once.
// 26 July 2024, noon, in UTC: the day that Llama's own templates fall back on.
constexpr int64_t kDayOfTemplates = 1721995200;

bool all_spaces(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

/// Labels the tokens that lie in answers.
class Labeller {
 public:
  Labeller(std::string_view text, const std::vector<TokenAt>& at, bool train_on_end,
           LabelledIds& row)
      : text_(text), at_(at), train_on_end_(train_on_end), row_(row) {}

  /// Spans in order.
  void label(const AnswerSpan& span) {
    while (token_ < at_.size() && at_[token_].end <= span.begin) ++token_;
    const auto in_answer = [&](const TokenAt& at) {
      // Of a text that the tokenizer changed, white space behind the answer cannot be told from it.
      return at.end <= span.end || (!at.known && at.end <= span.tail_end);
    };
    for (; token_ < at_.size() && in_answer(at_[token_]); ++token_) {
      check_known(at_[token_], span);
      learn(token_);
    }
    label_tail(span);
  }

 private:
  void learn(size_t token) { row_.labels[token] = row_.ids[token]; }

  /// A token of a text that the tokenizer changed may lie anywhere back to the last known one.
  void check_known(const TokenAt& at, const AnswerSpan& span) const {
    if (at.known) return;
    size_t first = token_;
    while (first > 0 && !at_[first - 1].known && at_[first - 1].end == at.end) --first;
    const size_t begin = first == 0 ? 0 : at_[first - 1].end;
    if (begin >= span.begin) return;
    throw DataError(
        problem("the tokenizer changes the text at the border of an answer, so that it cannot be "
                "said which tokens are the answer's")
            .must("be text that the tokenizer keeps")
            .remedy("Normalise the file (Unicode NFC)."));
  }

  /// What the template writes behind the answer, up to the first special token, which ends the
  /// turn: a model writes it, too. White space alone before that token is no more than its company.
  void label_tail(const AnswerSpan& span) {
    size_t end = token_;
    while (end < at_.size() && at_[end].end <= span.tail_end && !at_[end].special) ++end;
    const bool closed = end < at_.size() && at_[end].end <= span.tail_end;
    if (!closed) return;
    const size_t last = end == 0 ? 0 : at_[end - 1].end;
    const bool bare = last <= span.end || all_spaces(text_.substr(span.end, last - span.end));
    if (bare && !train_on_end_) return;
    for (size_t token = token_; token < end; ++token) learn(token);
    if (train_on_end_) learn(end);
    token_ = end;
  }

  std::string_view text_;
  const std::vector<TokenAt>& at_;
  bool train_on_end_;
  LabelledIds& row_;
  size_t token_ = 0;
};

/// Marks that rows carry for other trainers: OpenAI's weight 0, axolotl's train and training.
bool is_marked_off(const nlohmann::ordered_json& message) {
  const auto is = [&](const char* key, const nlohmann::ordered_json& value) {
    const auto found = message.find(key);
    return found != message.end() && *found == value;
  };
  return is("weight", 0) || is("train", false) || is("training", false);
}

std::vector<AnswerSpan> learned(std::vector<AnswerSpan> spans, const Conversation& conversation,
                                TrainOn train_on) {
  std::erase_if(spans, [&](const AnswerSpan& span) {
    return span.message < conversation.first_answer ||
           is_marked_off(conversation.messages.at(static_cast<size_t>(span.message)));
  });
  if (train_on != TrainOn::last || spans.empty()) return spans;
  int32_t last = 0;
  for (const AnswerSpan& span : spans) last = std::max(last, span.message);
  std::erase_if(spans, [&](const AnswerSpan& span) { return span.message != last; });
  return spans;
}

bool says_something(const nlohmann::ordered_json& message) {
  const auto content = message.find("content");
  return content != message.end() && content->is_string() &&
         !all_spaces(content->get_ref<const std::string&>());
}

/// Most templates write nothing of a message whose role they do not know: answers would be learned
/// without their questions. Of other roles than these words for the two that speak a template may
/// leave out what it likes.
void refuse_left_out(const Conversation& conversation, const chat_template::SourcedText& text) {
  using Kind = chat_template::Source::Kind;
  std::vector<bool> written(conversation.messages.size());
  for (const chat_template::SourcedText::Run& run : text.runs()) {
    const bool of_message = run.source.kind == Kind::field || run.source.kind == Kind::answer;
    if (of_message && run.source.message >= 0)
      written.at(static_cast<size_t>(run.source.message)) = true;
  }
  for (size_t i = 0; i < written.size(); ++i) {
    const auto& message = conversation.messages[i];
    const auto& word = message.at("role").get_ref<const std::string&>();
    const std::string_view role = role_of_word(word);
    const bool speaks = role == "user" || role == "assistant";
    if (written[i] || !speaks || word == role || !says_something(message)) continue;
    throw DataError(problem(cat("the chat template leaves out what messages[", i,
                                "] says: its role is \"", word, "\""))
                        .must("be of a role that the template knows")
                        .remedy(cat("Say who that is: data.roles: {", role, ": ", word, "}.")));
  }
}

}  // namespace

bool LabelledIds::any_label() const {
  // The first token is nobody's target.
  return labels.size() > 1 && std::any_of(labels.begin() + 1, labels.end(),
                                          [](int32_t label) { return label != formats::kNoLabel; });
}

LabelledIds encode_conversation(const Conversation& conversation,
                                const chat_template::ChatTemplate& chat_template,
                                const tokenizer::Tokenizer& tokenizer, const ChatOptions& options) {
  const chat_template::ChatOptions rendering = {.tools = conversation.tools,
                                                .time_seconds = kDayOfTemplates};
  const chat_template::SourcedText text =
      chat_template.render_sourced(conversation.messages, rendering);
  refuse_left_out(conversation, text);
  LabelledIds row;
  row.ids = tokenizer.encode(text.bytes());
  if (options.train_on == TrainOn::all) {
    row.labels = row.ids;
    return row;
  }
  row.labels.assign(row.ids.size(), formats::kNoLabel);
  const std::vector<TokenAt> at = align_tokens(tokenizer, text.bytes(), row.ids);
  Labeller labeller(text.bytes(), at, options.train_on_end, row);
  for (const AnswerSpan& span :
       learned(chat_template::answer_spans(text, chat_template.generation_prompt(rendering),
                                           chat_template.late_closing(rendering)),
               conversation, options.train_on)) {
    labeller.label(span);
  }
  return row;
}

int32_t end_of_turn(const chat_template::ChatTemplate& chat_template,
                    const tokenizer::Tokenizer& tokenizer) {
  Conversation example;
  example.messages = {{{"role", "user"}, {"content", "Hello"}},
                      {{"role", "assistant"}, {"content", "Hello"}}};
  const LabelledIds row = encode_conversation(example, chat_template, tokenizer, {});
  const LabelledIds without =
      encode_conversation(example, chat_template, tokenizer, {.train_on_end = false});
  for (size_t i = row.ids.size(); i-- > 0;) {
    if (row.labels[i] != without.labels[i]) return row.ids[i];
  }
  return -1;
}

LabelledIds encode_completion(const std::string& prompt, const std::string& completion,
                              const tokenizer::Tokenizer& tokenizer, const ChatOptions& options) {
  const std::string text = prompt + completion;
  LabelledIds row;
  row.ids = tokenizer.encode(text, {.special_as_text = options.special_as_text});
  row.labels.assign(row.ids.size(), formats::kNoLabel);
  if (options.train_on == TrainOn::all) {
    row.labels = row.ids;
  } else if (!completion.empty()) {
    const std::vector<TokenAt> at = align_tokens(tokenizer, text, row.ids);
    Labeller labeller(text, at, /*train_on_end=*/false, row);
    labeller.label({.begin = prompt.size(), .end = text.size(), .tail_end = text.size()});
  }
  // What the tokenizer puts around a text that it encodes by itself.
  const std::vector<int32_t> around = tokenizer.encode("", {.add_special = true});
  const int32_t end = tokenizer.end_of_text();
  const bool closes = !around.empty() && around.back() == end;
  const std::vector<int32_t> before(around.begin(), around.end() - (closes ? 1 : 0));
  row.ids.insert(row.ids.begin(), before.begin(), before.end());
  const std::vector<int32_t> none(before.size(), formats::kNoLabel);
  const std::vector<int32_t>& labels = options.train_on == TrainOn::all ? before : none;
  row.labels.insert(row.labels.begin(), labels.begin(), labels.end());
  if (end >= 0) {
    row.ids.push_back(end);
    const bool learn_end = options.train_on_end || options.train_on == TrainOn::all;
    row.labels.push_back(learn_end ? end : formats::kNoLabel);
  }
  return row;
}

}  // namespace tptrain::data
