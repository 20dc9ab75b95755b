// Text <-> ids. Never includes torch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::tokenizer {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual int64_t vocab_size() const = 0;
  /// Ends each document of a training stream and stops generation.
  virtual int32_t end_of_text() const = 0;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// Bytes of the ids; special tokens and ids that are not in the vocabulary give nothing. The
  /// bytes need not be whole UTF-8.
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;
  /// Hash of everything that decides ids: equal hashes encode alike.
  virtual std::string hash() const = 0;
  /// True where encode(a + b) is encode(a) then encode(b) wherever the text is cut: a large file
  /// can then be encoded in pieces.
  virtual bool encodes_piecewise() const { return false; }
};

/// "bytes": ids 0-255 are the bytes, 256 is end of text. Other names: throws ConfigError saying
/// what is known.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

}  // namespace tptrain::tokenizer
