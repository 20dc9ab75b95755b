#include "data/targetless.h"

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "base/work.h"
#include "chat_template/chat_template.h"
#include "data/chat_rows.h"
#include "data/corpus_rows.h"
#include "data/jsonl_rows.h"
#include "data/tokenize_files.h"
#include "formats/token_file.h"

namespace tptrain::data {

namespace {

constexpr size_t kMostNamed = 5;
constexpr int64_t kLabelsAtOnce = 1024;

/// Whether one of the labels [begin, end) is a target.
bool has_target(const formats::TokenFile& file, int64_t begin, int64_t end) {
  if (!file.header().labelled) return begin < end;
  std::vector<int64_t> labels;
  for (; begin < end; begin += kLabelsAtOnce) {
    labels.resize(static_cast<size_t>(std::min(kLabelsAtOnce, end - begin)));
    file.copy_labels(begin, labels);
    const auto is_target = [](int64_t label) { return label != formats::kNoLabel; };
    if (std::any_of(labels.begin(), labels.end(), is_target)) return true;
  }
  return false;
}

/// Goes over the documents of files as tokenize_files makes them.
class DocumentPlaces {
 public:
  explicit DocumentPlaces(const std::vector<int64_t>& wanted) : wanted_(wanted) {}
  bool done() const { return places_.size() == wanted_.size(); }
  void document(const std::string& place) {
    if (!done() && wanted_[places_.size()] == number_) places_.push_back(place);
    ++number_;
  }
  std::vector<std::string> take() { return std::move(places_); }

 private:
  const std::vector<int64_t>& wanted_;
  int64_t number_ = 0;
  std::vector<std::string> places_;
};

/// Whether a row becomes a document: one that is empty, or of which nothing is learned, does not.
bool is_document(const JsonlRow& row, const ChatOptions& options,
                 const tokenizer::Tokenizer& tokenizer,
                 const chat_template::ChatTemplate* chat_template) {
  switch (row.kind.content) {
    case RowKind::Content::conversation:
      return encode_conversation(row.conversation, *chat_template, tokenizer, options).any_label();
    case RowKind::Content::completion:
      return encode_completion(row.prompt, row.completion, tokenizer, options).any_label();
    case RowKind::Content::text:
    case RowKind::Content::ids:
    case RowKind::Content::labelled_ids:
      break;
  }
  return !row.text.empty() || !row.ids.empty();
}

void go_over_rows(const CorpusFile& file, JsonlParser& parser, RowTally& tally,
                  const Corpus& corpus, const tokenizer::Tokenizer& tokenizer,
                  DocumentPlaces& places) {
  const bool chats = file.rows && file.rows->content == RowKind::Content::conversation;
  const auto chat_template = chats ? corpus.chat_template() : nullptr;
  ChatOptions options = corpus.chat;
  options.special_as_text = corpus.special_as_text;
  CorpusRows rows(file, parser, tally);
  while (!places.done()) {
    const std::optional<JsonlRow> row = rows.next();
    if (!row) return;
    try {
      if (is_document(*row, options, tokenizer, chat_template.get())) places.document(rows.place());
    } catch (const DataError& refused) {  // counted when it was tokenized
      tally.bad(BadRow(problem(refused.what())));
    }
  }
}

void go_over_documents(const CorpusFile& file, int64_t vocab_size, DocumentPlaces& places) {
  std::filesystem::path stem = file.path;
  const int64_t documents =
      formats::TokenFile::indexed({stem.replace_extension()}, vocab_size).header().documents();
  for (int64_t document = 0; document < documents && !places.done(); ++document)
    places.document(cat(file.path.string(), ": document ", document));
}

}  // namespace

TargetlessDocuments targetless_documents(const PreparedTokens& tokens, Packing packing,
                                         int64_t seq_length) {
  const formats::TokenFile file = open_tokens(tokens);
  TargetlessDocuments found;
  formats::ReleaseBehind behind(file);
  for (int64_t document = 0; document < file.header().documents(); ++document) {
    const TokenRange range = document_range(file.header(), document);
    behind.reached(range.begin);
    int64_t end = range.end;
    if (packing == Packing::none) end = std::min(end, range.begin + seq_length + 1);
    if (has_target(file, range.begin + 1, end)) continue;
    if (++found.count <= static_cast<int64_t>(kMostNamed)) found.first.push_back(document);
  }
  return found;
}

std::vector<std::string> places_of_documents(const Corpus& corpus, const std::string& split,
                                             const tokenizer::Tokenizer& tokenizer,
                                             const std::vector<int64_t>& documents) {
  const std::string key = corpus.key.empty() ? "data." + split : corpus.key;
  const int64_t vocab_size = std::max(corpus.vocab_size, tokenizer.vocab_size());
  std::vector<std::string> ignored;
  const Work work("finding rows without a target");
  const std::vector<CorpusFile> files = choose_files(
      expand_sources(corpus.sources, key, corpus.first, ignored), corpus, key, vocab_size, ignored);
  JsonlParser parser(vocab_size, corpus.names);
  RowTally tally(corpus.max_bad_fraction, subset_of(corpus, files, ignored), corpus.holdout);
  DocumentPlaces places(documents);
  for (const CorpusFile& file : files) {
    if (places.done()) break;
    if (file.kind.format == Format::indexed) {
      go_over_documents(file, vocab_size, places);
    } else if (file.kind.format == Format::rows) {
      go_over_rows(file, parser, tally, corpus, tokenizer, places);
    } else if (tally.takes() && tally.takes_file(file)) {
      places.document(file.path.string());
    }
  }
  return places.take();
}

}  // namespace tptrain::data
