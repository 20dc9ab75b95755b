#include "data/file_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/interrupted_call.h"
#include "base/interruption.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain::data {

namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;
// Up to here a file may unpack to whatever it likes: a few lines of blanks do no harm.
constexpr int64_t kAlwaysUnpacked = int64_t{64} << 20;

}  // namespace

FileReader::FileReader(const std::filesystem::path& path, Contents contents)
    : path_(path), piece_(kPieceBytes, '\0') {
  descriptor_ = until_not_interrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (descriptor_ < 0) fail("open");
  if (contents == Contents::as_stored) return;
  try {
    stored_ = read_stored();
  } catch (...) {
    ::close(descriptor_);  // no destructor runs for what was not constructed
    throw;
  }
  decompressor_ = decompressor_for(stored_);
  if (decompressor_) unpacked_.resize(kPieceBytes);
}

FileReader::~FileReader() { ::close(descriptor_); }

std::string_view FileReader::next() {
  if (decompressor_) return unpack();
  if (!stored_.empty()) return std::exchange(stored_, {});
  return read_stored();
}

std::string_view FileReader::read_stored() {
  interruption_point();
  const ssize_t count =
      until_not_interrupted([&] { return ::read(descriptor_, piece_.data(), piece_.size()); });
  if (count < 0) fail("read");
  work_done(WorkUnit::bytes, count);
  const auto piece = std::string_view(piece_).substr(0, static_cast<size_t>(count));
  hash_.update(piece);
  return piece;
}

std::string_view FileReader::unpack() {
  try {
    while (true) {
      if (stored_.empty()) stored_ = read_stored();
      const auto [taken, given] = decompressor_->run(stored_, unpacked_);
      stored_.remove_prefix(taken);
      taken_bytes_ += static_cast<int64_t>(taken);
      unpacked_bytes_ += static_cast<int64_t>(given);
      if (unpacked_bytes_ > kAlwaysUnpacked && unpacked_bytes_ / kMostUnpacked > taken_bytes_) {
        fail_unpacking(cat("unpacks to more than ", kMostUnpacked, " times its size"));
      }
      if (given > 0) return std::string_view(unpacked_).substr(0, given);
      if (taken > 0) continue;
      if (decompressor_->complete()) return {};
      fail_unpacking("ends in the middle of its stream: it is not complete");
    }
  } catch (const StreamError& error) {
    fail_unpacking(error.what);
  }
}

void FileReader::fail(const char* call) const {
  throw DataError(problem(cat(call, " failed: ", std::generic_category().message(errno)))
                      .at(path_.string())
                      .remedy("Every file that the data sources name is read: make it readable, "
                              "or name the others one by one."));
}

void FileReader::fail_unpacking(const std::string& what) const {
  const std::string name(decompressor_->name());
  throw DataError(problem(cat("the ", name, " file ", what))
                      .at(path_.string())
                      .remedy(cat("Look at it with ", name, " -t; make it again, or unpack it.")));
}

std::string_view without_mark(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return text;
}

LineReader::LineReader(const std::filesystem::path& path, int64_t max_line_bytes)
    : reader_(path), max_line_bytes_(max_line_bytes) {
  rest_ = without_mark(reader_.next());
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
    if (static_cast<int64_t>(line_.size() + part.size()) > max_line_bytes_) refuse_long_line();
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (end != std::string_view::npos && !any) return part;
    any = true;
    line_ += part;
    if (end != std::string_view::npos) return line_;
  }
}

void LineReader::refuse_long_line() {
  // The next row begins behind it.
  while (!rest_.empty()) {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) {
      rest_ = reader_.next();
      continue;
    }
    rest_.remove_prefix(end + 1);
    break;
  }
  throw BadRow(
      problem(cat("the line is longer than ", human_bytes(max_line_bytes_)))
          .at(cat(reader_.path().string(), ":", line_number_))
          .must(cat("have at most ", with_thousands(max_line_bytes_), " bytes"))
          .remedy("Cut the document into several lines; for plain text set data.format: text."));
}

}  // namespace tptrain::data
