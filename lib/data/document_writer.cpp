#include "data/document_writer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/interruption.h"
#include "base/text.h"

namespace tptrain::data {

namespace {

/// What the tokenizer's post-processor puts before and behind a text.
struct Around {
  std::vector<int32_t> before;
  std::vector<int32_t> behind;
};

Around around_text(const tokenizer::Tokenizer& tokenizer) {
  constexpr std::string_view kAny = "a";
  const std::vector<int32_t> inside = tokenizer.encode(kAny);
  const std::vector<int32_t> all = tokenizer.encode(kAny, {.add_special = true});
  const auto at = std::search(all.begin(), all.end(), inside.begin(), inside.end());
  if (inside.empty() || at == all.end())
    throw InternalError(problem("a tokenizer that changes a text by what it adds around it"));
  return {.before = {all.begin(), at},
          .behind = {at + static_cast<std::ptrdiff_t>(inside.size()), all.end()}};
}

}  // namespace

DocumentWriter::DocumentWriter(const tokenizer::Tokenizer& tokenizer, int64_t vocab_size,
                               const Corpus& corpus, int threads, TokenOutput& output)
    : tokenizer_(tokenizer),
      limit_(vocab_size < tokenizer.vocab_size() ? vocab_size : 0),
      options_{.add_special = true, .special_as_text = corpus.special_as_text},
      threads_(threads),
      output_(output) {}

void DocumentWriter::text(std::string document, const CorpusFile& file, int64_t line) {
  if (document.empty()) return;
  waiting_bytes_ += document.size() + sizeof(std::string);  // many small ones count, too
  waiting_.push_back(std::move(document));
  places_.push_back({&file, line});
  if (waiting_bytes_ >= kTextAtOnce) flush();
}

void DocumentWriter::ids(const JsonlRow& row) {
  if (row.ids.empty()) return;
  flush();
  if (row.kind.content == RowKind::Content::labelled_ids) {
    output_.append(row.ids, row.labels);
  } else {
    output_.append(row.ids);
  }
  output_.end_document();
}

void DocumentWriter::begin_parts() {
  flush();
  last_id_ = -1;
  behind_cut_ = false;
  const std::vector<int32_t> before = around_text(tokenizer_).before;
  if (before.empty()) return;
  output_.append(before);
  last_id_ = before.back();
}

int32_t DocumentWriter::parts(std::span<const std::string_view> parts, const CorpusFile& file) {
  interruption_point();
  const tokenizer::EncodeOptions options = {.add_special = false,
                                            .special_as_text = options_.special_as_text};
  std::vector<std::string_view> texts(parts.begin(), parts.end());
  for (std::string_view& text : texts) {
    if (std::exchange(behind_cut_, true)) text.remove_prefix(tokenizer_.skipped_behind_cut());
  }
  for (const std::vector<int32_t>& ids :
       tokenizer::encode_documents(tokenizer_, texts, options, threads_)) {
    check_rows(ids, {&file, 0});
    output_.append(ids);
    if (!ids.empty()) last_id_ = ids.back();
  }
  return last_id_;
}

void DocumentWriter::end_parts(const CorpusFile& file) {
  std::vector<int32_t> behind = around_text(tokenizer_).behind;
  const int32_t end = tokenizer_.end_of_text();
  const int32_t last = behind.empty() ? last_id_ : behind.back();
  if (end >= 0 && last != end) behind.push_back(end);
  check_rows(behind, {&file, 0});
  output_.append(behind);
  if (last_id_ >= 0 || !behind.empty()) output_.end_document();
}

void DocumentWriter::flush() {
  if (waiting_.empty()) return;
  interruption_point();
  const std::vector<std::string_view> views(waiting_.begin(), waiting_.end());
  const int32_t end = tokenizer_.end_of_text();  // -1: it knows none
  size_t document = 0;
  for (std::vector<int32_t>& ids :
       tokenizer::encode_documents(tokenizer_, views, options_, threads_)) {
    // A post-processor that closes a sequence has done so already.
    if (end >= 0 && (ids.empty() || ids.back() != end)) ids.push_back(end);
    check_rows(ids, places_[document++]);
    if (ids.empty()) continue;  // nothing but what the tokenizer drops
    output_.append(ids);
    output_.end_document();
  }
  waiting_.clear();
  places_.clear();
  waiting_bytes_ = 0;
}

// A finished model may have fewer rows than its tokenizer has ids: such an id would read nothing.
void DocumentWriter::check_rows(std::span<const int32_t> ids, Place place) const {
  if (limit_ == 0) return;
  const auto over = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id >= limit_; });
  if (over == ids.end()) return;
  const std::string path = place.file->path.string();
  throw DataError(problem(cat("the text gives the id ", *over, " (", tokenizer_.token(*over), ")",
                              *over == tokenizer_.end_of_text() ? ", the end of text" : ""))
                      .at(place.line > 0 ? cat(path, ":", place.line) : path)
                      .must(cat("give ids below ", limit_, ", the rows of the model"))
                      .remedy("Take the token out of the text, or use the tokenizer that belongs "
                              "to the model."));
}

}  // namespace tptrain::data
