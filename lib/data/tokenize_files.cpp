#include "data/tokenize_files.h"

#include <memory>
#include <optional>
#include <utility>

#include "base/background.h"
#include "base/error.h"
#include "base/text.h"
#include "data/chat_writer.h"
#include "data/corpus_rows.h"
#include "data/document_writer.h"
#include "data/jsonl_rows.h"
#include "data/text_file.h"

namespace tptrain::data {

namespace {

/// A file of which nothing is learned is no mistake of a row.
void report_unlearned(const CorpusFile& file, const ChatWriter& chat, TrainOn train_on,
                      std::vector<std::string>& notes) {
  if (chat.unlearned() == 0) return;
  if (chat.unlearned() == chat.rows()) {
    throw DataError(
        problem(cat("none of its ", with_thousands(chat.rows()),
                    " rows holds a token that is to be learned",
                    chat.roles_of_unlearned().empty()
                        ? ""
                        : cat(" (the roles of its first are ", chat.roles_of_unlearned(), ")")))
            .at(file.path.string())
            .must(cat("hold answers of the assistant (data.train_on is ", word(train_on), ")"))
            .remedy("Say who the assistant is, data.roles: {assistant: WORD}; data.train_on: all "
                    "learns every token."));
  }
  notes.push_back(cat(with_thousands(chat.unlearned()), " of ", with_thousands(chat.rows()),
                      " rows of ", file.path.string(),
                      " hold nothing to be learned and are left out, the first is ",
                      chat.first_unlearned()));
}

/// The files of a corpus in their order, from a point on, with points on the way.
class Reading {
 public:
  Reading(const std::vector<CorpusFile>& files, const tokenizer::Tokenizer& tokenizer,
          const chat_template::ChatTemplate* chat_template, int64_t vocab_size,
          const Corpus& corpus, TokenOutput& output, std::vector<std::string>& notes)
      : files_(files),
        tokenizer_(tokenizer),
        corpus_(corpus),
        threads_(corpus.threads > 0 ? corpus.threads : usable_cores()),
        parser_(vocab_size, corpus.names),
        tally_(corpus.max_bad_fraction, subset_of(corpus, files, notes), corpus.holdout),
        documents_(tokenizer, vocab_size, corpus, threads_, output),
        chat_{.tokenizer = tokenizer,
              .chat_template = chat_template,
              .options = corpus.chat,
              .vocab_size = vocab_size,
              .threads = threads_,
              .tally = tally_},
        output_(output),
        notes_(notes),
        notes_before_(notes.size()) {
    chat_.options.special_as_text = corpus.special_as_text;
  }

  void run(const std::string& key) {
    size_t file = 0;
    if (const std::optional<ReadingPoint>& begin = output_.begin()) {
      resume(*begin);
      file = begin->file;
      if (begin->in_document) resume_in_text(*begin, file++);
      if (begin->rows > 0) append_rows(file++, &*begin);
    }
    for (; file < files_.size(); ++file) {
      if (files_[file].kind.format == Format::rows) {
        append_rows(file, nullptr);
      } else if (tally_.takes() && tally_.takes_file(files_[file])) {
        TextFile(files_[file], tokenizer_, documents_).append(at_place_of(file));
      }
      std::error_code unknown;  // then it counts for nothing
      const auto size = std::filesystem::file_size(files_[file].path, unknown);
      if (files_[file].kind.format == Format::text && !unknown) read_ += static_cast<int64_t>(size);
      if (is_due()) end_part({.file = file + 1});
    }
    documents_.flush();
    tally_.close(key, notes_);
  }

 private:
  // Of ReadingPoint::counts and texts.
  enum Count { passed, rows, bad, chat_rows, unlearned, first_line, last_id, kCounts };
  enum Text { first_unlearned, first_bad };

  void append_rows(size_t number, const ReadingPoint* begin) {
    const CorpusFile& file = files_[number];
    ChatWriter chat(chat_, output_);
    CorpusRows rows(file, parser_, tally_);
    if (begin != nullptr) {
      rows.skip(begin->rows, begin->counts.at(first_line));
      chat.resume(begin->counts.at(chat_rows), begin->counts.at(unlearned),
                  begin->texts.at(first_unlearned));
    }
    while (std::optional<JsonlRow> row = rows.next()) {
      read_ += static_cast<int64_t>(rows.bytes());
      append_row(std::move(*row), file, rows, chat);
      if (!is_due()) continue;
      chat.flush();
      ReadingPoint point = {.file = number, .rows = rows.passed()};
      point.counts.resize(kCounts);
      point.counts[chat_rows] = chat.rows();
      point.counts[unlearned] = chat.unlearned();
      point.counts[first_line] = rows.first_line();
      point.texts = {chat.first_unlearned()};
      end_part(std::move(point));
    }
    check_unchanged(file, rows.sha256());
    chat.flush();
    report_unlearned(file, chat, chat_.options.train_on, notes_);
  }

  void append_row(JsonlRow row, const CorpusFile& file, const CorpusRows& rows, ChatWriter& chat) {
    switch (row.kind.content) {
      case RowKind::Content::text:
        documents_.text(std::move(row.text), file, rows.line_number());
        break;
      case RowKind::Content::ids:
      case RowKind::Content::labelled_ids:
        documents_.ids(row);
        break;
      case RowKind::Content::conversation:
      case RowKind::Content::completion:
        documents_.flush();
        chat.add(std::move(row), rows.bytes(), rows.place());
        break;
    }
  }

  TextFile::AtPlace at_place_of(size_t number, int64_t begin = 0) {
    return [this, number, before = begin](const TextFile::Place& place) mutable {
      since_in_text_ += place.bytes - std::exchange(before, place.bytes);
      if (read_ + since_in_text_ < corpus_.part_bytes) return;
      ReadingPoint point = {
          .file = number, .text_bytes = place.bytes, .lines = place.lines, .in_document = true};
      point.counts.resize(kCounts);
      point.counts[last_id] = place.last_id;
      end_part(std::move(point));
    };
  }

  void resume_in_text(const ReadingPoint& begin, size_t number) {
    TextFile(files_.at(number), tokenizer_, documents_)
        .resume({.bytes = begin.text_bytes,
                 .lines = begin.lines,
                 .last_id = static_cast<int32_t>(begin.counts.at(last_id))},
                at_place_of(number, begin.text_bytes));
  }

  void resume(const ReadingPoint& begin) {
    tally_.resume({.passed = begin.counts.at(passed),
                   .rows = begin.counts.at(rows),
                   .bad = begin.counts.at(bad),
                   .first = {begin.texts.begin() + first_bad, begin.texts.end()}});
    notes_.insert(notes_.end(), begin.notes.begin(), begin.notes.end());
  }

  bool is_due() const { return read_ >= corpus_.part_bytes; }

  void end_part(ReadingPoint point) {
    documents_.flush();
    const RowTally::Counts counts = tally_.counts();
    point.counts.resize(kCounts);
    point.counts[passed] = counts.passed;
    point.counts[rows] = counts.rows;
    point.counts[bad] = counts.bad;
    point.texts.resize(first_bad);
    point.texts.insert(point.texts.end(), counts.first.begin(), counts.first.end());
    point.notes.assign(notes_.begin() + static_cast<std::ptrdiff_t>(notes_before_), notes_.end());
    output_.end_part(point);
    read_ = since_in_text_ = 0;
  }

  const std::vector<CorpusFile>& files_;
  const tokenizer::Tokenizer& tokenizer_;
  const Corpus& corpus_;
  int threads_;
  JsonlParser parser_;
  RowTally tally_;
  DocumentWriter documents_;
  ChatWriter::Context chat_;
  TokenOutput& output_;
  std::vector<std::string>& notes_;
  size_t notes_before_;        // what was said before the reading began
  int64_t read_ = 0;           // bytes since the last part's end
  int64_t since_in_text_ = 0;  // likewise, of the file of text that is being read
};

}  // namespace

void tokenize_files(const std::vector<CorpusFile>& files, const tokenizer::Tokenizer& tokenizer,
                    const chat_template::ChatTemplate* chat_template, int64_t vocab_size,
                    const Corpus& corpus, const std::string& key, TokenOutput& output,
                    std::vector<std::string>& notes) {
  Reading(files, tokenizer, chat_template, vocab_size, corpus, output, notes).run(key);
}

}  // namespace tptrain::data
