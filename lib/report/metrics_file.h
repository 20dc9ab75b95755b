// run_dir/metrics.jsonl as columns of numbers, read while the run still writes it. Whatever number
// a line has becomes a column by its name, so that a new key needs no change here (docs/metrics.md
// says what each is). Lines that are no record are counted, not refused: a report is a look at what
// is there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tptrain::report {

inline constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

/// One row a line; a line without a number has kNoNumber there.
class Columns {
 public:
  void begin_row(int64_t step);
  /// Of the row begun last. Beyond 64 columns a name is left out: no run has that many.
  void set(std::string_view name, double value);

  const std::vector<int64_t>& steps() const { return steps_; }
  size_t size() const { return steps_.size(); }
  bool empty() const { return steps_.empty(); }
  struct Column {
    std::string name;
    std::vector<double> values;  // as many as there are rows
  };
  const std::vector<Column>& all() const { return columns_; }
  /// Null where no line has it.
  const std::vector<double>* find(std::string_view name) const;
  /// Of the last row; kNoNumber where there is none.
  double last(std::string_view name) const;

 private:
  std::vector<int64_t> steps_;
  std::vector<Column> columns_;
};

struct SkippedStep {
  int64_t step = 0;
  std::string reason;
};

struct Metrics {
  Columns steps;
  /// By the name of the set; "" for what is said of all of them together, or of the only one.
  std::map<std::string, Columns> evaluations;
  Columns saves;  // in the order in which they were committed
  std::vector<SkippedStep> skipped;
  int64_t foreign_lines = 0;  // no record of a run
};

class MetricsFile {
 public:
  explicit MetricsFile(std::filesystem::path path);
  ~MetricsFile();
  MetricsFile(MetricsFile&&) noexcept;
  MetricsFile& operator=(MetricsFile&&) noexcept;

  /// Takes in the whole lines that were added since the last call; everything anew where the file
  /// was replaced, as a resume does. Whether there was any. A file that is not there has no lines.
  /// Throws DataError where it cannot be read.
  bool read_more();
  const Metrics& metrics() const { return metrics_; }

 private:
  struct Parser;
  void take_line(char* line, size_t length);

  std::filesystem::path path_;
  std::unique_ptr<Parser> parser_;
  Metrics metrics_;
  uint64_t inode_ = 0;
  int64_t read_bytes_ = 0;
};

}  // namespace tptrain::report
