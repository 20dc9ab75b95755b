#include "data/tokenize_files.h"

#include <simdjson.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <utility>

#include "base/background.h"
#include "base/error.h"
#include "base/files.h"
#include "base/interruption.h"
#include "base/text.h"
#include "data/chat_writer.h"
#include "data/corpus_rows.h"
#include "data/file_reader.h"
#include "data/jsonl_rows.h"

namespace tptrain::data {

namespace {

// Text that waits to be tokenized at once: enough work for many threads, little memory.
constexpr size_t kBytesAtOnce = size_t{4} << 20;

/// The name of the token file was made from the first reading.
void check_unchanged(const CorpusFile& file, const std::string& sha256) {
  if (sha256 == file.sha256) return;
  throw DataError(problem("the file changed while it was read")
                      .at(file.path.string())
                      .must("stay as it is until training has begun")
                      .remedy("Start again when it is complete."));
}

/// A tokenizer that works on characters would say it too, but not where.
void check_utf8(const std::string& text, const CorpusFile& file) {
  if (simdjson::validate_utf8(text.data(), text.size())) return;
  int64_t line = 1;
  std::string_view rest = text;
  while (true) {
    const size_t end = rest.find('\n');  // never within a character
    if (end == std::string_view::npos || !simdjson::validate_utf8(rest.data(), end)) break;
    rest.remove_prefix(end + 1);
    ++line;
  }
  throw DataError(problem("the line is not UTF-8")
                      .at(cat(file.path.string(), ":", line))
                      .must("be UTF-8: this tokenizer works on characters")
                      .remedy("Convert the file, for example with iconv -t utf-8."));
}

/// Documents in, tokens out in the same order; texts wait until there are enough for all threads.
class DocumentWriter {
 public:
  DocumentWriter(const tokenizer::Tokenizer& tokenizer, int64_t vocab_size, const Corpus& corpus,
                 int threads, formats::TokenFileWriter& writer)
      : tokenizer_(tokenizer),
        limit_(vocab_size < tokenizer.vocab_size() ? vocab_size : 0),
        options_{.add_special = true, .special_as_text = corpus.special_as_text},
        threads_(threads),
        writer_(writer) {}

  /// `line` 0: the whole file.
  void text(std::string document, const CorpusFile& file, int64_t line) {
    if (document.empty()) return;
    waiting_bytes_ += document.size() + sizeof document;  // many small ones count, too
    waiting_.push_back(std::move(document));
    places_.push_back({&file, line});
    if (waiting_bytes_ >= kBytesAtOnce) flush();
  }

  void ids(const JsonlRow& row) {
    if (row.ids.empty()) return;
    flush();
    if (row.kind.content == RowKind::Content::labelled_ids) {
      writer_.append(row.ids, row.labels);
    } else {
      writer_.append(row.ids);
    }
    writer_.end_document();
  }

  /// One document in pieces, for a tokenizer that encodes piecewise (which adds nothing at the
  /// beginning).
  void piece(std::string_view text, const CorpusFile& file) {
    flush();
    const std::vector<int32_t> ids = tokenizer_.encode(
        text, {.add_special = false, .special_as_text = options_.special_as_text});
    check_rows(ids, {&file, 0});
    writer_.append(ids);
  }
  void end_pieces(const CorpusFile& file) {
    const int32_t end = tokenizer_.end_of_text();
    if (end >= 0) {
      check_rows({&end, 1}, {&file, 0});
      writer_.append({&end, 1});
    }
    writer_.end_document();
  }

  void flush() {
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
      writer_.append(ids);
      writer_.end_document();
    }
    waiting_.clear();
    places_.clear();
    waiting_bytes_ = 0;
  }

 private:
  struct Place {
    const CorpusFile* file;
    int64_t line;
  };

  /// A finished model may have fewer rows than its tokenizer has ids: such an id would read
  /// nothing.
  void check_rows(std::span<const int32_t> ids, Place place) const {
    if (limit_ == 0) return;
    const auto over =
        std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id >= limit_; });
    if (over == ids.end()) return;
    const std::string path = place.file->path.string();
    throw DataError(problem(cat("the text gives the id ", *over, " (", tokenizer_.token(*over), ")",
                                *over == tokenizer_.end_of_text() ? ", the end of text" : ""))
                        .at(place.line > 0 ? cat(path, ":", place.line) : path)
                        .must(cat("give ids below ", limit_, ", the rows of the model"))
                        .remedy("Take the token out of the text, or use the tokenizer that belongs "
                                "to the model."));
  }

  const tokenizer::Tokenizer& tokenizer_;
  int64_t limit_;  // rows of the model where the tokenizer has more ids; 0: every id has one
  tokenizer::EncodeOptions options_;
  int threads_;
  formats::TokenFileWriter& writer_;
  std::vector<std::string> waiting_;
  std::vector<Place> places_;  // of those
  size_t waiting_bytes_ = 0;
};

[[noreturn]] void refuse_nul(const CorpusFile& file) {
  throw DataError(problem("there are NUL bytes in the file: it is no text")
                      .at(file.path.string())
                      .must("hold text or JSON rows, plain or packed by gzip or zstd")
                      .remedy("UTF-16 is converted by iconv -f utf-16 -t utf-8; data.format: text "
                              "trains on the file's bytes as they are."));
}

/// The text piece by piece, without a byte order mark.
class TextPieces {
 public:
  explicit TextPieces(const CorpusFile& file) : file_(file), reader_(file.path) {}
  std::string_view next() {
    std::string_view piece = reader_.next();
    if (!file_.any_bytes && piece.find('\0') != std::string_view::npos) refuse_nul(file_);
    if (first_ && file_.marked) piece = without_mark(piece);
    first_ = false;
    return piece;
  }
  std::string sha256() { return reader_.sha256(); }

 private:
  const CorpusFile& file_;
  FileReader reader_;
  bool first_ = true;
};

std::string whole_text(const CorpusFile& file) {
  constexpr size_t kLargestText = size_t{2} << 30;
  TextPieces pieces(file);
  std::string text;
  for (std::string_view piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
    if (piece.size() > kLargestText - text.size()) {
      throw DataError(problem(cat("the text has more than ", human_bytes(kLargestText)))
                          .at(file.path.string())
                          .must("be smaller: this tokenizer takes a document whole")
                          .remedy("Cut it into documents, for example as JSON lines: {\"text\": "
                                  "\"...\"}."));
    }
    text += piece;
  }
  check_unchanged(file, pieces.sha256());
  return text;
}

void append_text_file(const CorpusFile& file, const tokenizer::Tokenizer& tokenizer,
                      DocumentWriter& documents) {
  if (!tokenizer.encodes_piecewise()) {
    std::string text = whole_text(file);
    check_utf8(text, file);
    return documents.text(std::move(text), file, 0);
  }
  TextPieces pieces(file);
  bool any = false;
  for (std::string_view piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
    documents.piece(piece, file);
    any = true;
  }
  check_unchanged(file, pieces.sha256());
  if (any) documents.end_pieces(file);
}

/// Where rows go by their kind.
struct Sinks {
  DocumentWriter& documents;
  ChatWriter::Context chat;
  formats::TokenFileWriter& writer;
  std::vector<std::string>& notes;
};

/// A file of which nothing is learned is no mistake of a row.
void report_unlearned(const CorpusFile& file, const ChatWriter& chat, TrainOn train_on,
                      std::vector<std::string>& notes) {
  if (chat.unlearned() == 0) return;
  if (chat.unlearned() == chat.rows()) {
    throw DataError(
        problem(cat("none of its ", with_thousands(chat.rows()),
                    " rows holds a token that is to be learned"))
            .at(file.path.string())
            .must(cat("hold answers of the assistant (data.train_on is ", word(train_on), ")"))
            .remedy("Look at the roles of its messages; data.train_on: all learns every "
                    "token."));
  }
  notes.push_back(cat(with_thousands(chat.unlearned()), " of ", with_thousands(chat.rows()),
                      " rows of ", file.path.string(),
                      " hold nothing to be learned and are left out, the first is ",
                      chat.first_unlearned()));
}

void append_rows(const CorpusFile& file, JsonlParser& parser, Sinks& sinks) {
  ChatWriter chat(sinks.chat, sinks.writer);
  CorpusRows rows(file, parser, sinks.chat.tally);
  while (std::optional<JsonlRow> row = rows.next()) {
    switch (row->kind.content) {
      case RowKind::Content::text:
        sinks.documents.text(std::move(row->text), file, rows.line_number());
        break;
      case RowKind::Content::ids:
      case RowKind::Content::labelled_ids:
        sinks.documents.ids(*row);
        break;
      case RowKind::Content::conversation:
      case RowKind::Content::completion:
        sinks.documents.flush();
        chat.add(std::move(*row), rows.bytes(), rows.place());
        break;
    }
  }
  check_unchanged(file, rows.sha256());
  chat.flush();
  report_unlearned(file, chat, sinks.chat.options.train_on, sinks.notes);
}

}  // namespace

void tokenize_files(const std::vector<CorpusFile>& files, const tokenizer::Tokenizer& tokenizer,
                    const chat_template::ChatTemplate* chat_template, int64_t vocab_size,
                    const Corpus& corpus, const std::string& key, formats::TokenFileWriter& writer,
                    std::vector<std::string>& notes) {
  const int threads = corpus.threads > 0 ? corpus.threads : usable_cores();
  JsonlParser parser(vocab_size, corpus.text_key);
  RowTally tally(corpus.max_bad_fraction, subset_of(corpus, files, notes), corpus.holdout);
  DocumentWriter documents(tokenizer, vocab_size, corpus, threads, writer);
  ChatOptions chat = corpus.chat;
  chat.special_as_text = corpus.special_as_text;
  Sinks sinks = {.documents = documents,
                 .chat = {.tokenizer = tokenizer,
                          .chat_template = chat_template,
                          .options = chat,
                          .vocab_size = vocab_size,
                          .threads = threads,
                          .tally = tally},
                 .writer = writer,
                 .notes = notes};
  for (const CorpusFile& file : files) {
    if (file.kind.format == Format::rows) {
      append_rows(file, parser, sinks);
    } else if (tally.takes() && tally.takes_file(file)) {
      append_text_file(file, tokenizer, documents);
    }
  }
  documents.flush();
  tally.close(key, notes);
}

}  // namespace tptrain::data
