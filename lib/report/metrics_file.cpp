#include "report/metrics_file.h"

#include <fcntl.h>
#include <simdjson.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/text.h"
#include "report/shown_line.h"

namespace tptrain::report {
namespace {

constexpr size_t kMostColumns = 64;
constexpr size_t kBlockBytes = size_t{4} << 20;
constexpr size_t kLongestLine = size_t{1} << 20;  // a record has some hundred bytes
constexpr size_t kMostUnended = size_t{64} << 20;

DataError unreadable(const std::filesystem::path& path, const char* call) {
  return DataError(problem(cat(call, " failed (", std::strerror(errno), ")")).at(path.string()));
}

/// Closes at the end of the scope.
class File {
 public:
  explicit File(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor_ < 0 && errno != ENOENT && errno != ENOTDIR) throw unreadable(path, "open");
  }
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

/// Whatever is a number, by its names: "loss", "sources/wiki/epoch".
void set_numbers(const simdjson::dom::object& object, const std::string& prefix, int levels,
                 Columns& rows) {
  for (const simdjson::dom::key_value_pair member : object) {
    double value = 0;
    simdjson::dom::object inner;
    if (member.value.get(value) == simdjson::SUCCESS) {
      if (prefix.empty() && member.key == "step") continue;
      if (prefix.empty()) {
        rows.set(member.key, value);
      } else {
        rows.set(prefix + shown_line(member.key), value);
      }
    } else if (levels > 0 && member.key != "eval_sets" &&
               member.value.get(inner) == simdjson::SUCCESS) {
      set_numbers(inner, prefix + shown_line(member.key) + "/", levels - 1, rows);
    }
  }
}

void add_row(int64_t step, const simdjson::dom::object& record, Columns& rows) {
  constexpr int kLevels = 2;
  rows.begin_row(step);
  set_numbers(record, "", kLevels, rows);
}

/// {"wiki": {"loss": 2.5, ...}, ...}: each set as an evaluation of its own.
void add_sets(int64_t step, const simdjson::dom::object& record, const simdjson::dom::object& sets,
              std::map<std::string, Columns>& evaluations) {
  constexpr size_t kMostSets = 100;
  double time = kNoNumber;
  if (record.at_key("time").get(time) != simdjson::SUCCESS) time = kNoNumber;
  for (const simdjson::dom::key_value_pair set : sets) {
    simdjson::dom::object numbers;
    if (set.value.get(numbers) != simdjson::SUCCESS || evaluations.size() > kMostSets) continue;
    Columns& rows = evaluations[shown_line(set.key)];
    rows.begin_row(step);
    rows.set("time", time);
    for (const simdjson::dom::key_value_pair member : numbers) {
      double value = 0;
      if (member.value.get(value) == simdjson::SUCCESS)
        rows.set("eval_" + shown_line(member.key), value);
    }
  }
}

}  // namespace

void Columns::begin_row(int64_t step) {
  steps_.push_back(step);
  for (Column& column : columns_) column.values.push_back(kNoNumber);
}

void Columns::set(std::string_view name, double value) {
  for (Column& column : columns_) {
    if (column.name != name) continue;
    column.values.back() = value;
    return;
  }
  if (columns_.size() == kMostColumns) return;
  columns_.push_back({std::string(name), std::vector<double>(steps_.size(), kNoNumber)});
  columns_.back().values.back() = value;
}

const std::vector<double>* Columns::find(std::string_view name) const {
  for (const Column& column : columns_) {
    if (column.name == name) return &column.values;
  }
  return nullptr;
}

double Columns::last(std::string_view name) const {
  const std::vector<double>* values = find(name);
  return values == nullptr || values->empty() ? kNoNumber : values->back();
}

struct MetricsFile::Parser {
  simdjson::dom::parser json;
  std::string text;  // a line that is not whole yet, then what follows it
};

MetricsFile::MetricsFile(std::filesystem::path path)
    : path_(std::move(path)), parser_(std::make_unique<Parser>()) {}
MetricsFile::~MetricsFile() = default;
MetricsFile::MetricsFile(MetricsFile&&) noexcept = default;
MetricsFile& MetricsFile::operator=(MetricsFile&&) noexcept = default;

// `line` has room behind it for the parser to read beyond.
void MetricsFile::take_line(char* line, size_t length) {
  namespace dom = simdjson::dom;
  dom::object record;
  int64_t step = 0;
  if (length > kLongestLine ||
      parser_->json.parse(line, length, /*realloc_if_needed=*/false).get(record) !=
          simdjson::SUCCESS ||
      record.at_key("step").get(step) != simdjson::SUCCESS) {
    ++metrics_.foreign_lines;
    return;
  }
  dom::element ignored;
  std::string_view reason;
  if (record.at_key("skipped").get(reason) == simdjson::SUCCESS) {
    metrics_.skipped.push_back({step, shown_line(reason)});
    return;
  }
  if (record.at_key("save_s").get(ignored) == simdjson::SUCCESS)
    return add_row(step, record, metrics_.saves);
  if (record.at_key("eval_loss").get(ignored) != simdjson::SUCCESS)
    return add_row(step, record, metrics_.steps);
  add_row(step, record, metrics_.evaluations[""]);
  dom::object sets;
  if (record.at_key("eval_sets").get(sets) == simdjson::SUCCESS)
    add_sets(step, record, sets, metrics_.evaluations);
}

bool MetricsFile::read_more() {
  const File file(path_);
  if (file.descriptor() < 0) return false;
  struct stat now {};
  if (::fstat(file.descriptor(), &now) != 0) throw unreadable(path_, "fstat");
  if (!S_ISREG(now.st_mode)) throw DataError(problem("this is no regular file").at(path_.string()));
  bool changed = false;
  if (now.st_ino != inode_ || now.st_size < read_bytes_) {
    changed = true;
    metrics_ = {};
    parser_->text.clear();
    read_bytes_ = 0;
    inode_ = now.st_ino;
  }
  std::string& text = parser_->text;
  for (;;) {
    const size_t before = text.size();
    text.resize(before + kBlockBytes);
    const ssize_t count =
        ::pread(file.descriptor(), text.data() + before, kBlockBytes, read_bytes_);
    if (count < 0 && errno != EINTR) throw unreadable(path_, "pread");
    text.resize(before + static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count < 0) continue;
    read_bytes_ += count;
    const size_t whole = text.rfind('\n') + 1;  // npos + 1 is 0
    text.reserve(text.size() + simdjson::SIMDJSON_PADDING);
    for (size_t begin = 0; begin < whole;) {
      const size_t end = text.find('\n', begin);
      if (end > begin) take_line(text.data() + begin, end - begin);
      begin = end + 1;
    }
    text.erase(0, whole);
    if (text.size() > kMostUnended)
      throw DataError(problem(cat("no line ends within ", human_bytes(kMostUnended)))
                          .at(path_.string())
                          .must("be lines of JSON, as tptrain writes them"));
    if (count == 0) return changed;
    changed = true;
  }
}

}  // namespace tptrain::report
