#include "data/chat_writer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/interruption.h"
#include "base/text.h"

namespace tptrain::data {

namespace {

// Enough for many threads.
constexpr size_t kRowsAtOnce = 512;
constexpr size_t kBytesAtOnce = size_t{4} << 20;  // of their lines: what is made of them is more

/// The error with the row's place in front, as one of the data.
BadRow at_row(const Error& error, const std::string& place) {
  std::string text = error.what();
  const size_t kind = text.find(" error: ");
  if (kind != std::string::npos) text.erase(0, kind + std::string_view(" error: ").size());
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
  std::vector<std::exception_ptr> failures(waiting_.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < waiting_.size(); i = next++) {
      try {
        encoded[i] = encode(waiting_[i]);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  };
  const size_t most = std::min<size_t>(waiting_.size(), std::max(context_.threads, 1));
  std::vector<std::jthread> workers;
  for (size_t i = 1; i < most; ++i) workers.emplace_back(work);
  work();
  workers.clear();
  // The first by row, so that the message does not depend on the threads.
  for (const std::exception_ptr& failure : failures) {
    if (!failure) continue;
    try {
      std::rethrow_exception(failure);
    } catch (const BadRow& bad) {
      context_.tally.bad(bad);
    }
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
    writer_.append(row.ids);
  } else {
    writer_.append(row.ids, row.labels);
  }
  writer_.end_document();
}

}  // namespace tptrain::data
