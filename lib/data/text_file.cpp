#include "data/text_file.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "data/file_reader.h"

namespace tptrain::data {

namespace {

constexpr size_t kLargestText = size_t{2} << 30;
constexpr size_t kPartBytes = size_t{1} << 17;  // of one thread's turn

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

}  // namespace

// The name of the token file was made from the first reading.
void check_unchanged(const CorpusFile& file, const std::string& sha256) {
  if (sha256 == file.sha256) return;
  throw DataError(problem("the file changed while it was read")
                      .at(file.path.string())
                      .must("stay as it is until training has begun")
                      .remedy("Start again when it is complete."));
}

void TextFile::append(const AtPlace& at_place) { append_from(0, at_place); }

void TextFile::resume(const Place& begin, const AtPlace& at_place) {
  place_ = begin;
  in_parts_ = true;
  documents_.resume_in_parts(begin.last_id);
  append_from(begin.bytes, at_place);
}

void TextFile::append_from(int64_t begin, const AtPlace& at_place) {
  TextPieces pieces(file_);
  int64_t skipped = 0;
  for (std::string_view piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
    const auto skip = std::min<int64_t>(begin - skipped, static_cast<int64_t>(piece.size()));
    skipped += skip;
    piece.remove_prefix(static_cast<size_t>(skip));
    if (piece.size() > kLargestText - waiting_.size()) refuse_large();
    waiting_ += piece;
    if (waiting_.size() >= kTextAtOnce && append_parts()) at_place(place_);
  }
  check_unchanged(file_, pieces.sha256());
  if (!in_parts_) {
    check(waiting_);
    return documents_.text(std::move(waiting_), file_, 0);
  }
  searched_ = 0;
  append_parts();
  const std::string_view rest = waiting_;
  check(rest);
  if (!rest.empty()) documents_.parts({&rest, 1}, file_);
  documents_.end_parts(file_);
}

bool TextFile::append_parts() {
  // Where there is no cut far and wide the whole is not gone over with every piece that comes.
  if (waiting_.size() < searched_ + searched_ / 2) return false;
  std::vector<std::string_view> parts;
  std::string_view rest = waiting_;
  while (true) {
    size_t cut = tokenizer_.last_cut(rest.substr(0, kPartBytes));
    if (cut == 0) cut = tokenizer_.last_cut(rest);
    if (cut == 0) break;
    parts.push_back(rest.substr(0, cut));
    rest.remove_prefix(cut);
  }
  searched_ = rest.size();
  if (parts.empty()) return false;
  for (const std::string_view part : parts) check(part);
  if (!std::exchange(in_parts_, true)) documents_.begin_parts();
  place_.last_id = documents_.parts(parts, file_);
  const size_t taken = waiting_.size() - rest.size();
  place_.bytes += static_cast<int64_t>(taken);
  waiting_.erase(0, taken);
  return true;
}

// Whole characters, or what is to be refused. A tokenizer that works on characters would say that
// a text is no UTF-8, too, but not where.
void TextFile::check(std::string_view part) {
  if (tokenizer_.encodes_piecewise()) return;
  if (!simdjson::validate_utf8(part.data(), part.size())) refuse_utf8(part);
  place_.lines += std::count(part.begin(), part.end(), '\n');
}

void TextFile::refuse_utf8(std::string_view part) const {
  int64_t line = place_.lines + 1;
  while (true) {
    const size_t end = part.find('\n');  // never within a character
    if (end == std::string_view::npos || !simdjson::validate_utf8(part.data(), end)) break;
    part.remove_prefix(end + 1);
    ++line;
  }
  throw DataError(problem("the line is not UTF-8")
                      .at(cat(file_.path.string(), ":", line))
                      .must("be UTF-8: this tokenizer works on characters")
                      .remedy("Convert the file, for example with iconv -t utf-8."));
}

void TextFile::refuse_large() const {
  throw DataError(problem(cat("the text has more than ", human_bytes(kLargestText)))
                      .at(file_.path.string())
                      .must("be smaller: this tokenizer takes a document whole")
                      .remedy("Cut it into documents, for example as JSON lines: {\"text\": "
                              "\"...\"}."));
}

}  // namespace tptrain::data
