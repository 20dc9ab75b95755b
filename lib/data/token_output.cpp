#include "data/token_output.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain::data {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::string_view kParts = ".parts";
constexpr int64_t kCopiedTokens = int64_t{1} << 20;  // at once
constexpr int64_t kLongestPoint = int64_t{1} << 26;  // bytes of its JSON
constexpr auto kOld = std::chrono::hours(24 * 30);

fs::path point_path(fs::path stem) { return stem += ".json"; }

std::string text_of(const ReadingPoint& point, const std::string& bin_sha256) {
  const json all = {
      {"bin_sha256", bin_sha256},       {"file", point.file},   {"rows", point.rows},
      {"text_bytes", point.text_bytes}, {"lines", point.lines}, {"in_document", point.in_document},
      {"counts", point.counts},         {"texts", point.texts}, {"notes", point.notes}};
  // Messages name files, whose names may be any bytes.
  return all.dump(1, ' ', false, json::error_handler_t::replace);
}

ReadingPoint point_of(const json& all) {
  return {.file = all.at("file"),
          .rows = all.at("rows"),
          .text_bytes = all.at("text_bytes"),
          .lines = all.at("lines"),
          .in_document = all.at("in_document"),
          .counts = all.at("counts"),
          .texts = all.at("texts"),
          .notes = all.at("notes")};
}

}  // namespace

TokenOutput::TokenOutput(Options options) : options_(std::move(options)) {
  if (!options_.in_parts) return;
  create_directories_durably(parts_directory(options_.stem), FailAs::data_error);
  const Work work("checking what an interrupted run has tokenized");
  while (std::optional<ReadingPoint> point = take_up(parts_.size())) begin_ = std::move(point);
}

TokenOutput::~TokenOutput() = default;

fs::path parts_directory(const fs::path& stem) {
  return stem.parent_path() / cat(".", stem.filename().native(), kParts);
}

fs::path TokenOutput::part_stem(size_t number) const {
  return parts_directory(options_.stem) / cat("part-", number);
}

// Of the whole, and of its place: a part that was moved is none.
std::string TokenOutput::part_identity(size_t number) const {
  return sha256_hex(cat(options_.identity, " part ", number));
}

// One that is not whole is made again, over what stands there.
std::optional<ReadingPoint> TokenOutput::take_up(size_t number) {
  const fs::path stem = part_stem(number);
  std::error_code none;
  if (!fs::exists(point_path(stem), none)) return std::nullopt;
  try {
    const formats::TokenFile file(stem);
    const json all = json::parse(read_file(point_path(stem), kLongestPoint));
    if (file.header().identity != part_identity(number) ||
        file.header().vocab_size != options_.vocab_size ||
        file.header().bin_sha256 != all.at("bin_sha256").get<std::string>()) {
      return std::nullopt;
    }
    file.verify();
    ReadingPoint point = point_of(all);
    parts_.push_back({.stem = stem, .tokens = file.tokens(), .in_document = point.in_document});
    tokens_in_parts_ += file.tokens();
    return point;
  } catch (const DataError&) {
    return std::nullopt;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

formats::TokenFileWriter& TokenOutput::writer() {
  if (writer_) return *writer_;
  const size_t number = parts_.size();
  writer_ = options_.in_parts
                ? std::make_unique<formats::TokenFileWriter>(part_stem(number), options_.vocab_size,
                                                             part_identity(number), options_.labels)
                : std::make_unique<formats::TokenFileWriter>(options_.stem, options_.vocab_size,
                                                             options_.identity, options_.labels);
  return *writer_;
}

void TokenOutput::append(std::span<const int32_t> tokens, std::span<const int32_t> labels) {
  if (tokens.empty()) return;
  document_is_open_ = true;
  if (labels.data() == tokens.data()) {
    writer().append(tokens);
  } else {
    writer().append(tokens, labels);
  }
}

void TokenOutput::end_document() {
  // The end of one that the last part holds all of, but for its end.
  if (!document_is_open_ && !parts_.empty() && parts_.back().in_document) {
    parts_.back().in_document = false;
    return;
  }
  writer().end_document();
  document_is_open_ = false;
}

int64_t TokenOutput::tokens() const { return tokens_in_parts_ + (writer_ ? writer_->tokens() : 0); }

void TokenOutput::end_part(const ReadingPoint& point) {
  if (!options_.in_parts || !writer_ || writer_->tokens() == 0) return;
  if (std::exchange(document_is_open_, false)) writer_->end_document();
  const fs::path stem = part_stem(parts_.size());
  const formats::TokenFileHeader header = writer_->commit();
  writer_.reset();
  write_file_atomically(point_path(stem), text_of(point, header.bin_sha256), FailAs::data_error);
  parts_.push_back({.stem = stem, .tokens = header.tokens, .in_document = point.in_document});
  tokens_in_parts_ += header.tokens;
}

void TokenOutput::copy_part(const Part& part, formats::TokenFileWriter& to) const {
  const formats::TokenFile file(part.stem);
  const bool labelled = file.header().labelled;
  std::vector<int64_t> wide;
  const auto narrow = [&](int64_t at, int64_t count, bool labels) {
    wide.resize(static_cast<size_t>(count));
    labels ? file.copy_labels(at, wide) : file.copy(at, wide);
    return std::vector<int32_t>(wide.begin(), wide.end());
  };
  formats::ReleaseBehind behind(file);
  int64_t at = 0;
  for (const int64_t end : file.header().document_ends) {
    while (at < end) {
      const int64_t count = std::min(end - at, kCopiedTokens);
      const std::vector<int32_t> tokens = narrow(at, count, false);
      if (labelled) {
        to.append(tokens, narrow(at, count, true));
      } else {
        to.append(tokens);
      }
      at += count;
      behind.reached(at);
      work_done(WorkUnit::parts, count);
    }
    if (end < file.tokens() || !part.in_document) to.end_document();
  }
}

formats::TokenFileHeader TokenOutput::commit() {
  if (!options_.in_parts) return writer().commit();
  end_part({});
  formats::TokenFileWriter whole(options_.stem, options_.vocab_size, options_.identity,
                                 options_.labels);
  {
    const Work work("putting the parts together", WorkUnit::parts, tokens_in_parts_);
    for (const Part& part : parts_) copy_part(part, whole);
  }
  formats::TokenFileHeader header = whole.commit();
  std::error_code ignored;  // what cannot be removed is in nobody's way
  fs::remove_all(parts_directory(options_.stem), ignored);
  return header;
}

void remove_old_parts(const fs::path& directory) {
  for (const fs::path& path : entries_if_readable(directory)) {
    const std::string name = path.filename().native();
    if (!name.starts_with('.') || !name.ends_with(kParts) || !is_real_directory(path)) continue;
    std::error_code gone;
    const auto written = fs::last_write_time(path, gone);
    if (!gone && fs::file_time_type::clock::now() - written > kOld) fs::remove_all(path, gone);
  }
}

}  // namespace tptrain::data
