#include "formats/indexed_tokens.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "formats/put.h"

namespace tptrain::formats {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kIndexVersion = 1;
constexpr size_t kIndexFixedBytes = 9 + 8 + 1 + 8 + 8;
constexpr uint64_t kMaxIndexCount = uint64_t{1} << 40;  // beyond it sizes would overflow
constexpr int64_t kTokensAtOnce = int64_t{1} << 20;

[[noreturn]] void refuse(const std::string& name, std::string received, std::string constraint) {
  throw DataError(problem(std::move(received))
                      .at(name)
                      .must(std::move(constraint))
                      .remedy("The index is damaged, of another version, or belongs to another "
                              ".bin: make both again."));
}

template <typename T>
T at(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

StoredToken type_of(uint8_t code, const std::string& name) {
  switch (code) {
    case 1:
      return StoredToken::uint8;
    case 2:
      return StoredToken::int8;
    case 3:
      return StoredToken::int16;
    case 4:
      return StoredToken::int32;
    case 5:
      return StoredToken::int64;
    case 8:
      return StoredToken::uint16;
    default:
      refuse(name, cat("the type of its tokens is number ", static_cast<int>(code)),
             "be an integer's: 1, 2, 3, 4, 5 or 8");
  }
}

/// The tables of an index, whose sizes have been checked.
struct Tables {
  std::string_view bytes;
  size_t sequences = 0;
  size_t entries = 0;
  int64_t length(size_t i) const { return at<int32_t>(bytes, kIndexFixedBytes + 4 * i); }
  int64_t begin(size_t i) const {
    return at<int64_t>(bytes, kIndexFixedBytes + 4 * sequences + 8 * i);
  }
  int64_t first_of_document(size_t i) const {
    return at<int64_t>(bytes, kIndexFixedBytes + 12 * sequences + 8 * i);
  }
};

Tables tables_of(std::string_view bytes, const std::string& name) {
  if (!bytes.starts_with(kIndexedMagic)) {
    refuse(name, "the file does not begin with MMIDIDX", "be the index of a Megatron token file");
  }
  if (bytes.size() < kIndexFixedBytes) {
    refuse(name, cat("the file has ", bytes.size(), " bytes"),
           cat("have at least ", kIndexFixedBytes));
  }
  const auto version = at<uint64_t>(bytes, 9);
  if (version != kIndexVersion)
    refuse(name, cat("the version is ", version), cat("be ", kIndexVersion));
  const auto sequences = at<uint64_t>(bytes, 18);
  const auto entries = at<uint64_t>(bytes, 26);
  const uint64_t least = kIndexFixedBytes + 12 * sequences + 8 * entries;
  if (sequences > kMaxIndexCount || entries > kMaxIndexCount || entries == 0 ||
      (bytes.size() != least && bytes.size() != least + sequences)) {
    refuse(name,
           cat("the file has ", bytes.size(), " bytes and says it lists ", sequences,
               " sequences and ", entries, " ends of documents"),
           "have 12 bytes for each of the first, 8 for each of the second, and at least one of "
           "those");
  }
  return {.bytes = bytes,
          .sequences = static_cast<size_t>(sequences),
          .entries = static_cast<size_t>(entries)};
}

}  // namespace

IndexedHeader decode_indexed_index(std::string_view bytes, int64_t bin_bytes,
                                   const std::string& name) {
  const Tables tables = tables_of(bytes, name);
  IndexedHeader header{.type = type_of(at<uint8_t>(bytes, 17), name)};
  const int64_t width = bytes_of(header.type);
  std::vector<int64_t> ends = {0};  // of sequences, in tokens
  ends.reserve(tables.sequences + 1);
  for (size_t i = 0; i < tables.sequences; ++i) {
    const int64_t length = tables.length(i);
    if (length < 0) refuse(name, cat("sequence ", i, " has ", length, " tokens"), "have 0 or more");
    if (tables.begin(i) != ends.back() * width) {
      refuse(name,
             cat("sequence ", i, " begins at byte ", tables.begin(i), ", the one before ends at ",
                 ends.back() * width),
             "list sequences that lie end to end");
    }
    ends.push_back(ends.back() + length);
    if (ends.back() > bin_bytes / width) break;  // told below, before the sum may overflow
  }
  header.tokens = ends.back();
  if (header.tokens * width != bin_bytes) {
    refuse(name,
           cat("the sequences take ", header.tokens > bin_bytes / width ? "at least " : "",
               header.tokens * width, " bytes (", width, " a token), and the .bin beside it has ",
               bin_bytes),
           "describe the .bin beside it");
  }
  int64_t before = tables.first_of_document(0);
  if (before != 0) refuse(name, cat("the first document begins at sequence ", before), "be 0");
  for (size_t i = 1; i < tables.entries; ++i) {
    const int64_t first = tables.first_of_document(i);
    if (first < before || first > static_cast<int64_t>(tables.sequences)) {
      refuse(name,
             cat("document ", i - 1, " ends at sequence ", first, ", the one before at ", before,
                 ", and there are ", tables.sequences),
             "list rising ends of documents");
    }
    before = first;
    const int64_t end = ends[static_cast<size_t>(first)];
    const int64_t last = header.document_ends.empty() ? 0 : header.document_ends.back();
    if (end > last) header.document_ends.push_back(end);
  }
  const int64_t last = header.document_ends.empty() ? 0 : header.document_ends.back();
  if (last != header.tokens) {
    refuse(name, cat("its documents end at token ", last, " of ", header.tokens),
           "hold every token in a document");
  }
  return header;
}

void write_indexed(const TokenFile& from, const fs::path& stem) {
  const TokenFileHeader& header = from.header();
  const bool small = header.vocab_size <= 65536;
  const int64_t width = small ? 2 : 4;
  const Work work("writing the token file", WorkUnit::bytes, from.tokens() * width);
  const fs::path temporary = token_bin_path(stem).string() + ".tmp";
  DurableFile bin(temporary, FailAs::data_error);
  std::vector<int64_t> tokens;
  std::string bytes;
  ReleaseBehind behind(from);
  for (int64_t begin = 0; begin < from.tokens(); begin += kTokensAtOnce) {
    tokens.resize(static_cast<size_t>(std::min(kTokensAtOnce, from.tokens() - begin)));
    from.copy(begin, tokens);
    behind.reached(begin + static_cast<int64_t>(tokens.size()));
    bytes.clear();
    for (const int64_t token : tokens) {
      if (small) {
        put(bytes, static_cast<uint16_t>(token));
      } else {
        put(bytes, static_cast<int32_t>(token));
      }
    }
    bin.write(bytes);
  }
  bin.commit();
  std::string index(kIndexedMagic);
  put(index, kIndexVersion);
  put(index, static_cast<uint8_t>(small ? 8 : 4));
  put(index, static_cast<uint64_t>(header.documents()));
  put(index, static_cast<uint64_t>(header.documents() + 1));
  int64_t begin = 0;
  for (const int64_t end : header.document_ends) {
    if (end - begin > std::numeric_limits<int32_t>::max()) {
      throw DataError(problem(cat("a document has ", end - begin, " tokens"))
                          .at(stem.string())
                          .must("have less than 2^31: the format counts them in 32 bits"));
    }
    put(index, static_cast<int32_t>(end - begin));
    begin = end;
  }
  begin = 0;
  for (const int64_t end : header.document_ends) {
    put(index, begin * width);
    begin = end;
  }
  for (int64_t document = 0; document <= header.documents(); ++document) put(index, document);
  rename_durably(temporary, token_bin_path(stem), FailAs::data_error);
  write_file_atomically(token_idx_path(stem), index, FailAs::data_error);
}

}  // namespace tptrain::formats
