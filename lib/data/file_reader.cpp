#include "data/file_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::data {

FileReader::FileReader(const std::filesystem::path& path)
    : path_(path), piece_(size_t{1} << 20, '\0') {
  do {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) fail("open");
}

FileReader::~FileReader() { ::close(descriptor_); }

std::string_view FileReader::next() {
  ssize_t count;
  do {
    count = ::read(descriptor_, piece_.data(), piece_.size());
  } while (count < 0 && errno == EINTR);
  if (count < 0) fail("read");
  const auto piece = std::string_view(piece_).substr(0, static_cast<size_t>(count));
  hash_.update(piece);
  return piece;
}

void FileReader::fail(const char* call) const {
  throw DataError(problem(cat(call, " failed: ", std::generic_category().message(errno)))
                      .at(path_.string())
                      .remedy("Every file that the data sources name is read: make it readable, "
                              "or name the others one by one."));
}

LineReader::LineReader(const std::filesystem::path& path, int64_t max_line_bytes)
    : reader_(path), max_line_bytes_(max_line_bytes) {
  rest_ = reader_.next();
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
}

std::optional<std::string_view> LineReader::next() {
  line_.clear();
  bool any = false;
  while (true) {
    if (rest_.empty()) rest_ = reader_.next();
    if (rest_.empty()) {
      if (!any) return std::nullopt;
      return line_;  // the last line, without a line feed
    }
    if (!any) ++line_number_;
    const size_t end = rest_.find('\n');
    const std::string_view part = rest_.substr(0, end);
    check_length(line_.size() + part.size());
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (end != std::string_view::npos && !any) return part;
    any = true;
    line_ += part;
    if (end != std::string_view::npos) return line_;
  }
}

void LineReader::check_length(size_t bytes) const {
  if (static_cast<int64_t>(bytes) <= max_line_bytes_) return;
  throw DataError(
      problem(cat("the line is longer than ", human_bytes(max_line_bytes_)))
          .at(cat(reader_.path().string(), ":", line_number_))
          .must(cat("have at most ", with_thousands(max_line_bytes_), " bytes"))
          .remedy("Cut the document into several lines; for plain text set data.format: text."));
}

}  // namespace tptrain::data
