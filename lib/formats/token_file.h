// Token files: the tokens of a corpus as one array (.bin) and what is known of it (.idx). Knows
// nothing of text, tokenizers or batches.
//
//   NAME.bin   tokens, little-endian unsigned, 2 bytes each where that is enough for the vocabulary
//              (and for "no label", where there are labels), else 4. With labels each token is
//              followed by its own: a token, or all ones (65,535 or 4,294,967,295) for none.
//   NAME.idx   little-endian, in this order:
//     offset 0    8 bytes   magic "TPTOKIDX"
//     offset 8    uint32    version, 2
//     offset 12   uint32    bytes per token, 2 or 4
//     offset 16   uint64    tokens
//     offset 24   uint64    documents
//     offset 32   uint64    vocab_size: every token and label is below it
//     offset 40   uint64    1 where there are labels, else 0
//     offset 48   64 bytes  SHA-256 of NAME.bin, hex
//     offset 112  64 bytes  identity: SHA-256 of what the tokens were made from, hex
//     offset 176  uint64 a document: its end, counted in tokens; rising, the last one is `tokens`
//     the last 64 bytes     SHA-256 of everything before, hex
// The .idx is written last and atomically: a .bin without a valid .idx is no token file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"

namespace tptrain::formats {

struct TokenFileHeader {
  int64_t tokens = 0;
  int64_t vocab_size = 0;
  int bytes_per_token = 0;
  bool labelled = false;
  std::string bin_sha256;              // hex
  std::string identity;                // hex
  std::vector<int64_t> document_ends;  // in tokens, exclusive

  int64_t documents() const { return static_cast<int64_t>(document_ends.size()); }
};

/// The label of a token that is not to be predicted.
inline constexpr int32_t kNoLabel = -100;

/// Text of an .idx. The header must be consistent; InternalError where it is not.
std::string encode_token_index(const TokenFileHeader& header);
/// Reads an .idx and trusts nothing in it: magic, version, sizes, self-hash and document ends are
/// checked. `name` is for messages. Throws DataError.
TokenFileHeader decode_token_index(std::string_view bytes, const std::string& name);

/// Throws the DataError of a token file of tptrain that is not what it was written as.
[[noreturn]] void refuse_token_file(const std::string& name, std::string received,
                                    std::string constraint);

/// NAME.bin and NAME.idx of `stem`, which carries no extension (a dot within its name is kept).
std::filesystem::path token_bin_path(const std::filesystem::path& stem);
std::filesystem::path token_idx_path(const std::filesystem::path& stem);

enum class StoredToken { uint8, int8, int16, uint16, int32, uint32, int64 };
int bytes_of(StoredToken type);

/// A token file, mapped for reading. Cheap to open: it does not read the tokens; verify() does.
class TokenFile {
 public:
  /// Throws DataError: missing, damaged index, or a .bin of another size than the index says.
  explicit TokenFile(const std::filesystem::path& stem);
  /// Megatron's token files (indexed_tokens.h) of these stems, end to end, for a model of that
  /// vocabulary. Their identity is that of the indexes, the sizes, and samples of the tokens.
  /// Throws DataError: missing, or an index that does not fit its .bin.
  static TokenFile indexed(const std::vector<std::filesystem::path>& stems, int64_t vocab_size);

  const TokenFileHeader& header() const { return header_; }
  int64_t tokens() const { return header_.tokens; }
  /// Copies tokens [begin, begin + out.size()). Throws DataError where a token is not below
  /// vocab_size (the .bin is damaged, or was made with another tokenizer).
  void copy(int64_t begin, std::span<int64_t> out) const;
  /// The same of the labels, kNoLabel where there is none; in a file without labels the tokens.
  void copy_labels(int64_t begin, std::span<int64_t> out) const;
  /// Tokens and labels [begin, end) were read and will hardly be again: they no longer count as
  /// this process's memory. They can be read again all the same.
  void release(int64_t begin, int64_t end) const;
  /// Reads the whole .bin. Throws DataError where its SHA-256 is not the one in the index. Not of
  /// indexed files, which hold none.
  void verify() const;

 private:
  /// One .bin.
  struct Part {
    std::filesystem::path path;
    MappedFile bin;
    StoredToken type;
    int64_t begin = 0;  // of its tokens among those of all
    int64_t end = 0;
  };
  enum class Column { token, label };
  TokenFile() = default;
  void copy_column(Column column, int64_t begin, std::span<int64_t> out) const;
  void copy_part(const Part& part, Column column, int64_t begin, std::span<int64_t> out) const;
  template <typename Stored>
  void copy_as(const Part& part, Column column, int64_t begin, std::span<int64_t> out) const;
  [[noreturn]] void refuse_token(const Part& part, Column column, int64_t at, int64_t token) const;

  TokenFileHeader header_;
  std::vector<Part> parts_;  // of tptrain's own files one
};

/// For whoever goes over a file from front to back: what lies behind is released in large pieces,
/// since the kernel maps pages around the one that is read, also such as were released.
class ReleaseBehind {
 public:
  /// `file` outlives it.
  explicit ReleaseBehind(const TokenFile& file) : file_(file) {}
  /// Tokens before `token` have been read.
  void reached(int64_t token) {
    if (token - released_ < kTokens) return;
    file_.release(released_, token);
    released_ = token;
  }

 private:
  static constexpr int64_t kTokens = int64_t{1} << 20;
  const TokenFile& file_;
  int64_t released_ = 0;
};

enum class Labels { none, stored };

/// Writes a token file front to back. Nothing stands under the final names before commit(); without
/// commit() the temporary is removed.
class TokenFileWriter {
 public:
  /// The directory of `stem` must exist. `identity`: 64 hex digits. Throws DataError where the file
  /// cannot be created.
  TokenFileWriter(const std::filesystem::path& stem, int64_t vocab_size, std::string identity,
                  Labels labels = Labels::none);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  /// Each token is its own label. Throws InternalError where a token is not in [0, vocab_size);
  /// DataError where the write fails.
  void append(std::span<const int32_t> tokens) { append(tokens, tokens); }
  /// As many labels as tokens, each in [0, vocab_size) or kNoLabel. InternalError where the file
  /// stores none and they differ from the tokens.
  void append(std::span<const int32_t> tokens, std::span<const int32_t> labels);
  /// The tokens since the last call are one document. Documents are not empty: InternalError.
  void end_document();
  /// So far.
  int64_t tokens() const { return header_.tokens; }
  /// Puts both files in place, durably; replaces what stood there. The last document must be ended.
  /// Returns the header.
  TokenFileHeader commit();

 private:
  uint32_t checked(int32_t token) const;

  std::filesystem::path stem_;
  std::filesystem::path temporary_;
  TokenFileHeader header_;
  std::unique_ptr<DurableFile> bin_;
};

}  // namespace tptrain::formats
