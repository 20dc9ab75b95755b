#include "formats/token_file.h"

#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/hex.h"
#include "base/random_id.h"
#include "base/text.h"
#include "formats/put.h"

namespace tptrain::formats {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian and mapped as they are");

namespace {

constexpr std::string_view kMagic = "TPTOKIDX";
constexpr uint32_t kVersion = 2;
constexpr size_t kHexBytes = 64;
constexpr size_t kFixedBytes = 8 + 2 * 4 + 4 * 8 + 2 * kHexBytes;
// Sizes beyond this are damage, and would overflow the sums below.
constexpr uint64_t kMaxCount = uint64_t{1} << 56;

template <typename T>
T take(std::string_view& in) {
  T value;
  std::memcpy(&value, in.data(), sizeof value);
  in.remove_prefix(sizeof value);
  return value;
}

std::string take_text(std::string_view& in, size_t count) {
  const std::string text(in.substr(0, count));
  in.remove_prefix(count);
  return text;
}

int bytes_per_token(int64_t vocab_size, bool labelled) {
  return vocab_size + (labelled ? 1 : 0) <= 65536 ? 2 : 4;
}

void remove_if_there(const fs::path& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return;
  throw DataError(
      problem(cat("unlink failed: ", std::generic_category().message(errno))).at(path.string()));
}

fs::path directory_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

void refuse_token_file(const std::string& name, std::string received, std::string constraint) {
  throw DataError(
      problem(std::move(received))
          .at(name)
          .must(std::move(constraint))
          .remedy("The file is damaged or no token file: remove it (and the file beside "
                  "it) and start again; it is made anew from the text."));
}

fs::path token_bin_path(const fs::path& stem) { return stem.string() + ".bin"; }
fs::path token_idx_path(const fs::path& stem) { return stem.string() + ".idx"; }

std::string encode_token_index(const TokenFileHeader& header) {
  const auto& ends = header.document_ends;
  if (!is_hex(header.bin_sha256, kHexBytes) || !is_hex(header.identity, kHexBytes) ||
      header.tokens != (ends.empty() ? 0 : ends.back())) {
    throw InternalError(problem("the header of a token file is not consistent"));
  }
  std::string out(kMagic);
  out.reserve(kFixedBytes + 8 * ends.size() + kHexBytes);
  put(out, kVersion);
  put(out, static_cast<uint32_t>(header.bytes_per_token));
  put(out, static_cast<uint64_t>(header.tokens));
  put(out, static_cast<uint64_t>(ends.size()));
  put(out, static_cast<uint64_t>(header.vocab_size));
  put(out, uint64_t{header.labelled});
  out += header.bin_sha256;
  out += header.identity;
  for (const int64_t end : ends) put(out, static_cast<uint64_t>(end));
  return out += sha256_hex(out);
}

namespace {

std::vector<int64_t> take_document_ends(std::string_view& rest, uint64_t documents, uint64_t tokens,
                                        const std::string& name) {
  std::vector<int64_t> ends;
  uint64_t last = 0;
  for (uint64_t document = 0; document < documents; ++document) {
    const auto end = take<uint64_t>(rest);
    if (end <= last || end > tokens) {
      refuse_token_file(name,
                        cat("document ", document, " ends at token ", end, ", the one before at ",
                            last, ", and there are ", tokens, " tokens"),
                        "list rising document ends");
    }
    ends.push_back(static_cast<int64_t>(end));
    last = end;
  }
  if (last != tokens) {
    refuse_token_file(name, cat("the last document ends at token ", last, " of ", tokens),
                      "end with the last token");
  }
  return ends;
}

}  // namespace

TokenFileHeader decode_token_index(std::string_view bytes, const std::string& name) {
  std::string_view rest = bytes;
  if (bytes.size() < kMagic.size() || take_text(rest, kMagic.size()) != kMagic) {
    refuse_token_file(name, "the file does not begin with " + std::string(kMagic),
                      "be a token index");
  }
  if (bytes.size() < kFixedBytes + kHexBytes) {
    refuse_token_file(name, cat("the file has ", bytes.size(), " bytes"),
                      cat("have at least ", kFixedBytes + kHexBytes));
  }
  const auto version = take<uint32_t>(rest);
  if (version != kVersion) {
    refuse_token_file(name, cat("the format version is ", version), cat("be ", kVersion));
  }
  TokenFileHeader header;
  const auto stored_bytes_per_token = take<uint32_t>(rest);
  const auto tokens = take<uint64_t>(rest);
  const auto documents = take<uint64_t>(rest);
  const auto vocab_size = take<uint64_t>(rest);
  const auto labelled = take<uint64_t>(rest);
  header.bin_sha256 = take_text(rest, kHexBytes);
  header.identity = take_text(rest, kHexBytes);
  // Sizes before the hash: a truncated file should be called truncated.
  if (documents > kMaxCount || rest.size() != 8 * documents + kHexBytes) {
    refuse_token_file(
        name,
        cat("the file has ", bytes.size(), " bytes and says it lists ", documents, " documents"),
        "have 8 bytes for each of them");
  }
  const std::string_view self_hash = bytes.substr(bytes.size() - kHexBytes);
  if (sha256_hex(bytes.substr(0, bytes.size() - kHexBytes)) != self_hash) {
    refuse_token_file(name, "the SHA-256 of the contents is not the one at the end",
                      "be as it was when written");
  }
  // What follows can fail only in a file made by another program, or made to deceive.
  if (vocab_size == 0 || vocab_size > (uint64_t{1} << 31) || tokens > kMaxCount || labelled > 1 ||
      !is_hex(header.bin_sha256, kHexBytes) || !is_hex(header.identity, kHexBytes)) {
    refuse_token_file(
        name, cat("vocab_size is ", vocab_size, ", tokens is ", tokens, ", labels is ", labelled),
        "hold a vocabulary of 1 to 2^31 tokens, labels of 0 or 1 and two SHA-256 hashes");
  }
  header.vocab_size = static_cast<int64_t>(vocab_size);
  header.tokens = static_cast<int64_t>(tokens);
  header.labelled = labelled == 1;
  header.bytes_per_token = bytes_per_token(header.vocab_size, header.labelled);
  if (static_cast<int>(stored_bytes_per_token) != header.bytes_per_token) {
    refuse_token_file(name, cat("bytes per token is ", stored_bytes_per_token),
                      cat("be ", header.bytes_per_token, " for a vocabulary of ", vocab_size));
  }
  header.document_ends = take_document_ends(rest, documents, tokens, name);
  return header;
}

TokenFileWriter::TokenFileWriter(const fs::path& stem, int64_t vocab_size, std::string identity,
                                 Labels labels)
    : stem_(stem) {
  if (vocab_size < 1 || vocab_size > (int64_t{1} << 31) || !is_hex(identity, kHexBytes)) {
    throw InternalError(
        problem(cat("token file with vocab_size ", vocab_size, " and identity \"", identity, "\""))
            .at(stem.string()));
  }
  header_.vocab_size = vocab_size;
  header_.labelled = labels == Labels::stored;
  header_.bytes_per_token = bytes_per_token(vocab_size, header_.labelled);
  header_.identity = std::move(identity);
  // Random, so that what a killed writer left is never in the way.
  temporary_ = cat(stem.string(), ".bin.tmp-", to_hex(random_word(), 16));
  bin_ = std::make_unique<DurableFile>(temporary_, FailAs::data_error);
}

TokenFileWriter::~TokenFileWriter() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void TokenFileWriter::append(std::span<const int32_t> tokens, std::span<const int32_t> labels) {
  const bool same = labels.data() == tokens.data();
  if (labels.size() != tokens.size() || (!header_.labelled && !same)) {
    throw InternalError(problem(cat(labels.size(), " labels for ", tokens.size(), " tokens"))
                            .at(stem_.string())
                            .must("be as many, and go into a file that stores labels"));
  }
  std::string bytes;
  bytes.reserve(tokens.size() * static_cast<size_t>(header_.bytes_per_token) *
                (header_.labelled ? 2 : 1));
  const auto put_one = [&](uint32_t value) {
    if (header_.bytes_per_token == 2) {
      put(bytes, static_cast<uint16_t>(value));
    } else {
      put(bytes, value);
    }
  };
  for (size_t i = 0; i < tokens.size(); ++i) {
    put_one(checked(tokens[i]));
    if (!header_.labelled) continue;
    put_one(labels[i] == kNoLabel ? ~uint32_t{0} : checked(labels[i]));
  }
  bin_->write(bytes);
  header_.tokens += static_cast<int64_t>(tokens.size());
}

uint32_t TokenFileWriter::checked(int32_t token) const {
  if (token >= 0 && token < header_.vocab_size) return static_cast<uint32_t>(token);
  throw InternalError(problem(cat("the tokenizer gave token ", token))
                          .at(stem_.string())
                          .must(cat("be below its vocabulary size, ", header_.vocab_size)));
}

void TokenFileWriter::end_document() {
  const int64_t last = header_.document_ends.empty() ? 0 : header_.document_ends.back();
  if (header_.tokens == last) {
    throw InternalError(problem("a document without tokens").at(stem_.string()));
  }
  header_.document_ends.push_back(header_.tokens);
}

TokenFileHeader TokenFileWriter::commit() {
  header_.bin_sha256 = bin_->commit().sha256;
  const std::string index = encode_token_index(header_);
  // An old .idx goes first, durably: at no moment may it stand beside a .bin that it does not
  // describe.
  remove_if_there(token_idx_path(stem_));
  fsync_directory(directory_of(stem_), FailAs::data_error);
  rename_durably(temporary_, token_bin_path(stem_), FailAs::data_error);
  temporary_.clear();
  write_file_atomically(token_idx_path(stem_), index, FailAs::data_error);
  return header_;
}

}  // namespace tptrain::formats
