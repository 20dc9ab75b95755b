// The rows of a corpus's files as they become documents: parsed, of one kind a file, without those
// that a subset leaves out and those that are malformed, as far as that is tolerated. Whoever goes
// over the rows of a corpus, to tokenize them or to find one again, goes this way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/holdout.h"
#include "data/jsonl_rows.h"
#include "data/permutation.h"
#include "data/row_reader.h"
#include "data/tokenize_files.h"

namespace tptrain::data {

/// Which rows of a corpus a subset takes: as many as it says, drawn alike on every day and for
/// every seed; of two subsets the larger one holds the smaller.
class RowSubset {
 public:
  /// Counts the rows: reads the files of rows. `notes` gets a sentence
  /// where there are fewer than it asks for.
  RowSubset(const config::Share& share, const std::vector<CorpusFile>& files,
            std::vector<std::string>& notes);
  bool holds(int64_t row) const { return permutation_(row) < taken_; }

 private:
  int64_t taken_ = 0;
  Permutation permutation_;
};

/// None where the corpus is taken whole.
std::optional<RowSubset> subset_of(const Corpus& corpus, const std::vector<CorpusFile>& files,
                                   std::vector<std::string>& notes);

/// Rows and malformed rows of all files of a corpus, as they go by. A file of text is a row.
class RowTally {
 public:
  explicit RowTally(double max_bad_fraction, std::optional<RowSubset> subset = std::nullopt,
                    Holdout holdout = {})
      : max_bad_fraction_(max_bad_fraction), subset_(std::move(subset)), holdout_(holdout) {}

  /// The next row: whether it is one of the subset.
  bool takes() { return !subset_ || subset_->holds(passed_++); }
  /// Of one that is: whether what it holds is of the part that is asked for.
  bool takes(const JsonlRow& row) const { return holdout_.takes(row); }
  /// The same of a file of text.
  bool takes_file(const CorpusFile& file) const;
  void row() { ++rows_; }
  /// Throws `bad` where none is tolerated, else counts it.
  void bad(const BadRow& bad);
  /// At the end. Throws DataError, naming `key`, where more were malformed than
  /// data.max_bad_fraction of the rows; a sentence for `notes` where some were.
  void close(const std::string& key, std::vector<std::string>& notes) const;

  /// All that is counted so far.
  struct Counts {
    int64_t passed = 0;
    int64_t rows = 0;
    int64_t bad = 0;
    std::vector<std::string> first = {};
  };
  Counts counts() const { return {passed_, rows_, bad_, first_}; }
  void resume(Counts counts);

 private:
  double max_bad_fraction_;
  std::optional<RowSubset> subset_;
  Holdout holdout_;
  int64_t passed_ = 0;
  int64_t rows_ = 0;
  int64_t bad_ = 0;
  std::vector<std::string> first_ = {};
};

class CorpusRows {
 public:
  /// All outlive it.
  CorpusRows(const CorpusFile& file, JsonlParser& parser, RowTally& tally);

  /// The next row that is not blank. Throws BadRow where the tally tolerates none, DataError where
  /// the file cannot be read.
  std::optional<JsonlRow> next();
  /// Of that row: "file:line", and the length of its text.
  std::string place() const;
  int64_t line_number() const { return reader_->line_number(); }
  size_t bytes() const { return bytes_; }
  /// Rows that were read so far, blank and malformed ones too; and the first line that is a row.
  int64_t passed() const { return passed_; }
  int64_t first_line() const { return first_line_; }
  /// Passes over as many without looking at them, before any is read.
  void skip(int64_t rows, int64_t first_line);
  /// Of the whole file: call it when next() has given none.
  std::string sha256() { return reader_->sha256(); }

 private:
  std::optional<std::string_view> next_text();
  void check_kind(const RowKind& kind);

  const CorpusFile& file_;
  JsonlParser& parser_;
  RowTally& tally_;
  std::unique_ptr<RowReader> reader_;
  std::optional<RowKind> kind_;
  int64_t first_line_ = 0;
  int64_t passed_ = 0;
  size_t bytes_ = 0;
};

}  // namespace tptrain::data
