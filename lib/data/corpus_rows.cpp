#include "data/corpus_rows.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/cause.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain::data {

namespace {

constexpr size_t kMostNamed = 3;

int64_t rows_of(const CorpusFile& file) {
  if (file.kind.format == Format::text) return 1;
  const std::unique_ptr<RowReader> rows = open_rows(file.path, file.kind.layout);
  int64_t count = 0;
  while (true) {
    try {
      const auto text = rows->next();
      if (!text) return count;
      if (!is_blank(*text)) ++count;
    } catch (const BadRow&) {
      ++count;  // told, or left out, when it is read as a row
    }
  }
}

int64_t rows_of(const std::vector<CorpusFile>& files) {
  const Work work("counting the rows");
  int64_t rows = 0;
  for (const CorpusFile& file : files) rows += rows_of(file);
  return std::max<int64_t>(1, rows);
}

}  // namespace

RowSubset::RowSubset(const config::Share& share, const std::vector<CorpusFile>& files,
                     std::vector<std::string>& notes)
    : taken_(rows_of(files)), permutation_(taken_, 0, 0) {
  const int64_t rows = taken_;
  if (share.count > 0) {
    taken_ = std::min(rows, share.count);
  } else {
    taken_ = std::max<int64_t>(1, std::llround(share.fraction * static_cast<double>(rows)));
  }
  if (share.count > rows) {
    notes.push_back(cat("a subset of ", with_thousands(share.count),
                        " rows is asked for, and there are ", with_thousands(rows),
                        ": all are taken"));
  }
}

std::optional<RowSubset> subset_of(const Corpus& corpus, const std::vector<CorpusFile>& files,
                                   std::vector<std::string>& notes) {
  if (!corpus.subset) return std::nullopt;
  return RowSubset(*corpus.subset, files, notes);
}

bool RowTally::takes_file(const CorpusFile& file) const {
  if (!holdout_.any()) return true;
  return holdout_.takes(file.sha256.empty() ? sha256_file(file.path, FailAs::data_error)
                                            : file.sha256);
}

void RowTally::resume(Counts counts) {
  passed_ = counts.passed;
  rows_ = counts.rows;
  bad_ = counts.bad;
  first_ = std::move(counts.first);
}

void RowTally::bad(const BadRow& bad) {
  if (max_bad_fraction_ == 0) throw bad;
  ++bad_;
  if (first_.size() < kMostNamed) first_.push_back(cause_of(bad));
}

void RowTally::close(const std::string& key, std::vector<std::string>& notes) const {
  if (bad_ == 0) return;
  const std::string what = cat(with_thousands(bad_), " of ", with_thousands(rows_),
                               rows_ == 1 ? " row is" : " rows are", " malformed");
  const std::string first = cat(bad_ > 1 ? "the first: " : "", join(first_, "; "));
  if (static_cast<double>(bad_) > max_bad_fraction_ * static_cast<double>(rows_)) {
    throw DataError(
        problem(cat(what, ", ", first))
            .at(key)
            .must(cat("be at most ", max_bad_fraction_, " of them (data.max_bad_fraction)"))
            .remedy("Repair or remove them, or raise data.max_bad_fraction."));
  }
  notes.push_back(cat(what, " and left out, ", first));
}

CorpusRows::CorpusRows(const CorpusFile& file, JsonlParser& parser, RowTally& tally)
    : file_(file),
      parser_(parser),
      tally_(tally),
      reader_(open_rows(file.path, file.kind.layout)),
      kind_(file.rows) {}

std::string CorpusRows::place() const { return cat(file_.path.string(), ":", line_number()); }

std::optional<JsonlRow> CorpusRows::next() {
  while (true) {
    const std::optional<std::string_view> text = next_text();
    if (!text) return std::nullopt;
    tally_.row();
    bytes_ = text->size();
    try {
      std::optional<JsonlRow> row =
          parser_.parse(*text, file_.path.native(), reader_->line_number());
      if (!row) continue;
      check_kind(row->kind);
      if (tally_.takes(*row)) return row;
    } catch (const BadRow& bad) {
      tally_.bad(bad);
    }
  }
}

// One that is not blank, and that the subset takes.
std::optional<std::string_view> CorpusRows::next_text() {
  while (true) {
    ++passed_;
    try {
      const auto text = reader_->next();
      if (!text || (!is_blank(*text) && tally_.takes())) return text;
    } catch (const BadRow& bad) {
      if (!tally_.takes()) continue;
      tally_.row();
      tally_.bad(bad);
    }
  }
}

void CorpusRows::skip(int64_t rows, int64_t first_line) {
  first_line_ = first_line;
  for (; passed_ < rows; ++passed_) {
    try {
      if (!reader_->next()) return;
    } catch (const BadRow&) {
      // Counted by whoever read it.
    }
  }
}

void CorpusRows::check_kind(const RowKind& kind) {
  if (first_line_ == 0) first_line_ = line_number();
  if (!kind_) kind_ = kind;
  if (kind == *kind_) return;
  throw BadRow(problem(cat("the row is ", describe(kind), ", that of line ", first_line_, " is ",
                           describe(*kind_)))
                   .at(place())
                   .must("be of the same kind as all rows of its file")
                   .remedy("Put rows of different kinds into different files; a row of which "
                           "every token counts has its input_ids as labels."));
}

}  // namespace tptrain::data
