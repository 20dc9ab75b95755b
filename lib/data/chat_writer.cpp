#include "data/chat_writer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/interruption.h"
#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "data/for_each_index.h"

namespace tptrain::data {

namespace {

// Enough for many threads.
constexpr size_t kRowsAtOnce = 512;
constexpr size_t kBytesAtOnce = size_t{4} << 20;  // of their lines: what is made of them is more

/// "user, bot": who speaks in a conversation, in the order of their first messages.
std::string roles_of(const Conversation& conversation) {
  std::vector<std::string> roles;
  for (const nlohmann::ordered_json& message : conversation.messages) {
    const std::string role =
        printable_line(utf8_prefix(message.at("role").get_ref<const std::string&>(), /*limit=*/40));
    if (std::find(roles.begin(), roles.end(), role) == roles.end()) roles.push_back(role);
  }
  return join(roles);
}

/// The error with the row's place in front, as one of the data.
BadRow at_row(const Error& error, const std::string& place) {
  std::string text = error.what();
  const size_t kind = text.find(" error: ");
  if (kind != std::string::npos) text.erase(0, kind + std::string_view(" error: ").size());
  if (text.ends_with('.')) text.pop_back();  // the sentence goes on
  return BadRow(problem(std::move(text)).at(place));
}

}  // namespace

void ChatWriter::add(JsonlRow row, size_t bytes, std::string place) {
  waiting_.push_back({std::move(row), std::move(place)});
  waiting_bytes_ += bytes;
  if (waiting_.size() >= kRowsAtOnce || waiting_bytes_ >= kBytesAtOnce) flush();
}

LabelledIds ChatWriter::encode(const Waiting& waiting) const {
  try {
    if (waiting.row.kind.content == RowKind::Content::completion) {
      return encode_completion(waiting.row.prompt, waiting.row.completion, context_.tokenizer,
                               context_.options);
    }
    return encode_conversation(waiting.row.conversation, *context_.chat_template,
                               context_.tokenizer, context_.options);
  } catch (const Error& error) {
    throw at_row(error, waiting.place);
  }
}

std::vector<std::optional<LabelledIds>> ChatWriter::encode_all() const {
  std::vector<std::optional<LabelledIds>> encoded(waiting_.size());
  std::vector<std::optional<BadRow>> bad(waiting_.size());
  for_each_index(waiting_.size(), context_.threads, [&](const Turn& turn) {
    const size_t i = turn.index;
    try {
      encoded[i] = encode(waiting_[i]);
    } catch (const BadRow& error) {
      bad[i] = error;
    }
  });
  // In their order, so that what is said does not depend on the threads.
  for (const std::optional<BadRow>& error : bad) {
    if (error) context_.tally.bad(*error);
  }
  return encoded;
}

void ChatWriter::flush() {
  if (waiting_.empty()) return;
  interruption_point();
  const std::vector<std::optional<LabelledIds>> encoded = encode_all();
  for (size_t i = 0; i < encoded.size(); ++i) {
    if (!encoded[i]) continue;
    ++rows_;
    if (encoded[i]->any_label()) {
      append(*encoded[i], waiting_[i].place);
    } else if (unlearned_++ == 0) {
      first_unlearned_ = waiting_[i].place;
      roles_of_unlearned_ = roles_of(waiting_[i].row.conversation);
    }
  }
  waiting_.clear();
  waiting_bytes_ = 0;
}

void ChatWriter::append(const LabelledIds& row, const std::string& place) {
  const auto over = std::find_if(row.ids.begin(), row.ids.end(),
                                 [&](int32_t id) { return id >= context_.vocab_size; });
  if (over != row.ids.end()) {
    throw DataError(
        problem(cat("the row gives the id ", *over, " (", context_.tokenizer.token(*over), ")"))
            .at(place)
            .must(cat("give ids below ", context_.vocab_size, ", the rows of the model"))
            .remedy("Use the tokenizer that belongs to the model."));
  }
  if (context_.options.train_on == TrainOn::all) {
    output_.append(row.ids);
  } else {
    output_.append(row.ids, row.labels);
  }
  output_.end_document();
}

}  // namespace tptrain::data
