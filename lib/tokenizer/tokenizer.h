// Text <-> ids. Never includes torch.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::tokenizer {

struct EncodeOptions {
  bool add_special = false;      // what the tokenizer's post-processor adds: begin-of-text of Llama
  bool special_as_text = false;  // the strings of special tokens are ordinary text: for text that
                                 // is not trusted
};

struct DecodeOptions {
  bool skip_special = true;
};

/// All functions may be called by several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// The highest id + 1: what a model's table must hold at least.
  virtual int64_t vocab_size() const = 0;
  /// Ends each document of a training stream and stops generation.
  virtual int32_t end_of_text() const = 0;
  /// Throws DataError where the text is no UTF-8 and the tokenizer works on characters.
  virtual std::vector<int32_t> encode(std::string_view text,
                                      const EncodeOptions& options = {}) const = 0;
  /// Bytes of the ids; ids that are not in the vocabulary give nothing. The bytes need not be whole
  /// UTF-8.
  virtual std::string decode(const std::vector<int32_t>& ids,
                             const DecodeOptions& options = {}) const = 0;
  /// The entry of the vocabulary as its file spells it ("Ġthe"); "" where there is none.
  virtual std::string token(int32_t id) const = 0;
  /// The id of such an entry, or -1.
  virtual int32_t find(std::string_view token) const = 0;
  /// Hash of everything that decides ids: equal hashes encode alike.
  virtual std::string hash() const = 0;
  /// True where encode(a + b) is encode(a) then encode(b) wherever the text is cut: a large file
  /// can then be encoded in pieces.
  virtual bool encodes_piecewise() const { return false; }
  /// The last place in `text` where a text that begins with it may be cut, whatever follows: the
  /// ids of the whole are those of the parts, each encoded without what add_special adds. 0: none
  /// is known. Places are about a line apart where a tokenizer knows some.
  virtual size_t last_cut(std::string_view text) const {
    return encodes_piecewise() ? text.size() : 0;
  }
  /// Bytes that a part behind such a cut is to be encoded without: 1 of a tokenizer that puts a
  /// space before every text, in place of the one that the part begins with.
  virtual size_t skipped_behind_cut() const { return 0; }
};

/// "bytes": ids 0-255 are the bytes, 256 is end of text. Else a directory or a file of one:
/// tokenizer.json (BPE), tokenizer.model (sentencepiece or tiktoken ranks), vocab.json with
/// merges.txt beside it. Throws ConfigError: no such file, or a kind that is not known; DataError:
/// a file that is damaged, or asks for what is not built.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

/// Each document on its own, `threads` at a time; the result does not depend on the number.
std::vector<std::vector<int32_t>> encode_documents(const Tokenizer& tokenizer,
                                                   std::span<const std::string_view> documents,
                                                   const EncodeOptions& options, int threads);

}  // namespace tptrain::tokenizer
