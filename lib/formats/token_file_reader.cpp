// Reading token files: tptrain's own and Megatron's.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/mapped_ranges.h"
#include "base/text.h"
#include "formats/indexed_tokens.h"
#include "formats/token_file.h"

namespace tptrain::formats {

namespace fs = std::filesystem;

namespace {

// Of each .bin that an identity is made from without reading it.
constexpr size_t kSamples = 64;
constexpr size_t kSampleBytes = 4096;

/// The size, and pieces spread over the whole.
void hash_samples(std::span<const std::byte> bytes, Sha256& hash) {
  hash.update(cat(bytes.size(), " bytes\n"));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (size_t sample = 0; sample < kSamples && !text.empty(); ++sample) {
    const size_t last = text.size() - std::min(text.size(), kSampleBytes);
    hash.update(text.substr(last / (kSamples - 1) * sample, kSampleBytes));
    if (last == 0) break;
  }
  hash.update(text.substr(text.size() - std::min(text.size(), kSampleBytes)));
}

}  // namespace

int bytes_of(StoredToken type) {
  switch (type) {
    case StoredToken::uint8:
    case StoredToken::int8:
      return 1;
    case StoredToken::int16:
    case StoredToken::uint16:
      return 2;
    case StoredToken::int32:
    case StoredToken::uint32:
      return 4;
    case StoredToken::int64:
      return 8;
  }
  throw InternalError(problem("a stored token of no known type"));
}

TokenFile::TokenFile(const fs::path& stem)
    : header_(decode_token_index(read_file(token_idx_path(stem)), token_idx_path(stem).string())) {
  const fs::path path = token_bin_path(stem);
  MappedFile bin(path);
  const auto expected =
      static_cast<size_t>(header_.tokens) * header_.bytes_per_token * (header_.labelled ? 2 : 1);
  if (bin.bytes().size() != expected) {
    refuse_token_file(
        path.string(), cat("the file has ", bin.bytes().size(), " bytes"),
        cat("have ", expected, " bytes (", header_.tokens, " tokens of ", header_.bytes_per_token,
            " bytes", header_.labelled ? ", each with a label" : "",
            "), as the .idx beside it says"));
  }
  parts_.push_back(
      {.path = path,
       .bin = std::move(bin),
       .type = header_.bytes_per_token == 2 ? StoredToken::uint16 : StoredToken::uint32,
       .begin = 0,
       .end = header_.tokens});
}

TokenFile TokenFile::indexed(const std::vector<fs::path>& stems, int64_t vocab_size) {
  TokenFile file;
  file.header_.vocab_size = vocab_size;
  Sha256 identity;
  identity.update("tptrain indexed 1\n");
  for (const fs::path& stem : stems) {
    const fs::path idx = token_idx_path(stem);
    const std::string index = read_file(idx);
    MappedFile bin(token_bin_path(stem));
    const auto bin_bytes = static_cast<int64_t>(bin.bytes().size());
    const IndexedHeader header = decode_indexed_index(index, bin_bytes, idx.string());
    identity.update(index);
    hash_samples(bin.bytes(), identity);
    const int64_t begin = file.header_.tokens;
    for (const int64_t end : header.document_ends)
      file.header_.document_ends.push_back(begin + end);
    file.header_.tokens += header.tokens;
    file.parts_.push_back({.path = token_bin_path(stem),
                           .bin = std::move(bin),
                           .type = header.type,
                           .begin = begin,
                           .end = file.header_.tokens});
  }
  file.header_.identity = identity.hex();
  return file;
}

template <typename Stored>
void TokenFile::copy_as(const Part& part, Column column, int64_t begin,
                        std::span<int64_t> out) const {
  // A map begins at a page, so tokens are aligned.
  const auto* stored = reinterpret_cast<const Stored*>(part.bin.bytes().data());
  const int64_t stride = header_.labelled ? 2 : 1;
  const bool labels = header_.labelled && column == Column::label;
  stored += (begin - part.begin) * stride + (labels ? 1 : 0);
  for (size_t i = 0; i < out.size(); ++i, stored += stride) {
    if (labels && *stored == std::numeric_limits<Stored>::max()) {
      out[i] = kNoLabel;
      continue;
    }
    const auto token = static_cast<int64_t>(*stored);
    if (token < 0 || token >= header_.vocab_size)
      refuse_token(part, labels ? Column::label : Column::token, begin + static_cast<int64_t>(i),
                   token);
    out[i] = token;
  }
}

void TokenFile::refuse_token(const Part& part, Column column, int64_t at, int64_t token) const {
  const std::string what = cat(column == Column::label ? "the label of token " : "token ",
                               at - part.begin, " is ", token);
  const std::string constraint = cat("be below the vocabulary size, ", header_.vocab_size);
  if (!header_.bin_sha256.empty()) refuse_token_file(part.path.string(), what, constraint);
  throw DataError(problem(what)
                      .at(part.path.string())
                      .must(constraint)
                      .remedy("Was the file made with another tokenizer? Make it with the "
                              "model's."));
}

void TokenFile::copy_part(const Part& part, Column column, int64_t begin,
                          std::span<int64_t> out) const {
  switch (part.type) {
    case StoredToken::uint8:
      return copy_as<uint8_t>(part, column, begin, out);
    case StoredToken::int8:
      return copy_as<int8_t>(part, column, begin, out);
    case StoredToken::int16:
      return copy_as<int16_t>(part, column, begin, out);
    case StoredToken::uint16:
      return copy_as<uint16_t>(part, column, begin, out);
    case StoredToken::int32:
      return copy_as<int32_t>(part, column, begin, out);
    case StoredToken::uint32:
      return copy_as<uint32_t>(part, column, begin, out);
    case StoredToken::int64:
      return copy_as<int64_t>(part, column, begin, out);
  }
}

void TokenFile::copy_column(Column column, int64_t begin, std::span<int64_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  if (begin < 0 || begin > header_.tokens || count > header_.tokens - begin) {
    throw InternalError(
        problem(cat(count, " tokens from ", begin, " of ", header_.tokens, " asked for"))
            .at(parts_.empty() ? "" : parts_.front().path.string()));
  }
  auto part = std::upper_bound(parts_.begin(), parts_.end(), begin,
                               [](int64_t token, const Part& one) { return token < one.end; });
  while (!out.empty()) {
    const auto here =
        static_cast<size_t>(std::min(static_cast<int64_t>(out.size()), part->end - begin));
    copy_part(*part++, column, begin, out.first(here));
    begin += static_cast<int64_t>(here);
    out = out.subspan(here);
  }
}

void TokenFile::copy(int64_t begin, std::span<int64_t> out) const {
  copy_column(Column::token, begin, out);
}

void TokenFile::copy_labels(int64_t begin, std::span<int64_t> out) const {
  copy_column(Column::label, begin, out);
}

void TokenFile::release(int64_t begin, int64_t end) const {
  for (const Part& part : parts_) {
    const int64_t first = std::max(begin, part.begin), last = std::min(end, part.end);
    if (first >= last) continue;
    const auto stride = static_cast<size_t>(bytes_of(part.type)) * (header_.labelled ? 2 : 1);
    release_mapped(part.bin.bytes().subspan(static_cast<size_t>(first - part.begin) * stride,
                                            static_cast<size_t>(last - first) * stride));
  }
}

void TokenFile::verify() const {
  const fs::path& path = parts_.front().path;
  const std::string found = sha256_file(path, FailAs::data_error);
  if (found == header_.bin_sha256) return;
  refuse_token_file(path.string(), cat("SHA-256 is ", found),
                    cat("be ", header_.bin_sha256, ", as the .idx beside it says"));
}

}  // namespace tptrain::formats
