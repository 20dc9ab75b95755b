#include "data/array_reader.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/arrow_rows.h"
#include "data/jsonl_rows.h"

namespace tptrain::data {

namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

ArrayReader::ArrayReader(const std::filesystem::path& path, int64_t max_bytes)
    : reader_(path), max_bytes_(max_bytes) {
  rest_ = without_mark(reader_.next());
}

std::optional<std::string_view> ArrayReader::next() {
  if (state_ == State::done) return std::nullopt;
  if (state_ == State::before) {
    if (peek() != '[') refuse("there is no [", "be one JSON array of rows", "See docs/data.md.");
    take();
  }
  char first = peek();
  if (state_ == State::between && first == ',') {
    take();
    first = peek();
    if (first == ']') {
      refuse("there is a comma before the ]", "end with a row", "Remove the comma.");
    }
  } else if (state_ == State::between && first != ']' && first != '\0') {
    refuse("there is no comma between this row and the one before", "have one",
           "Write the rows as [{...}, {...}], or one a line without brackets.");
  }
  if (first == '\0') {
    refuse("the file ends within its array", "end with ]", "Is it complete? Make it again.");
  }
  if (first == ']') {
    take();
    state_ = State::done;
    if (peek() == '\0') return std::nullopt;
    refuse("something stands behind the array", "be one JSON array of rows",
           "Put it into a file of its own.");
  }
  state_ = State::between;
  read_element();
  return element_;
}

char ArrayReader::peek() {
  while (true) {
    while (!rest_.empty() && is_space(rest_.front())) take();
    if (!rest_.empty()) return rest_.front();
    rest_ = reader_.next();
    if (rest_.empty()) return '\0';
  }
}

void ArrayReader::take() {
  if (rest_.front() == '\n') ++line_;
  rest_.remove_prefix(1);
}

void ArrayReader::read_element() {
  element_.clear();
  element_line_ = line_;
  depth_ = 0;
  in_string_ = escaped_ = too_long_ = false;
  while (!take_part()) {
    rest_ = reader_.next();
    if (rest_.empty()) {
      refuse(cat("the file ends within the row that begins in line ", element_line_), "end with ]",
             "Is it complete? Make it again.");
    }
  }
  if (!too_long_) return;
  throw BadRow(problem(cat("the row is longer than ", human_bytes(max_bytes_)))
                   .at(cat(reader_.path().string(), ":", element_line_))
                   .must(cat("have at most ", with_thousands(max_bytes_), " bytes"))
                   .remedy("Cut the document into several rows."));
}

bool ArrayReader::take_part() {
  size_t at = 0;
  bool ended = false;
  for (; at < rest_.size() && !ended; ++at) {
    const char c = rest_[at];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
      continue;
    }
    if (c == '"') in_string_ = true;
    if (c == '{' || c == '[') ++depth_;
    // Of a number or a word, the end is what comes behind it.
    if (depth_ == 0 && (c == ',' || c == ']' || c == '}' || is_space(c))) break;
    if (c == '}' || c == ']') ended = --depth_ == 0;
  }
  const bool stopped = ended || at < rest_.size();
  const std::string_view part = rest_.substr(0, at);
  keep(part);
  line_ += std::count(part.begin(), part.end(), '\n');
  rest_.remove_prefix(at);
  return stopped;
}

// One that is too long is read to its end, but not kept.
void ArrayReader::keep(std::string_view part) {
  too_long_ = too_long_ || static_cast<int64_t>(element_.size() + part.size()) > max_bytes_;
  if (too_long_) {
    element_.clear();
  } else {
    element_ += part;
  }
}

void ArrayReader::refuse(std::string received, std::string constraint, std::string fix) const {
  throw DataError(problem(std::move(received))
                      .at(cat(reader_.path().string(), ":", line_))
                      .must(std::move(constraint))
                      .remedy(std::move(fix)));
}

std::unique_ptr<RowReader> open_rows(const std::filesystem::path& path, RowLayout layout) {
  if (layout == RowLayout::array) return std::make_unique<ArrayReader>(path, kMaxLineBytes);
  if (layout == RowLayout::lines) return std::make_unique<LineReader>(path, kMaxLineBytes);
  return open_arrow_rows(path, layout);
}

}  // namespace tptrain::data
