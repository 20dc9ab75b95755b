#include "tokenizer/byte_tokenizer.h"

#include "base/files.h"

namespace tptrain::tokenizer {

namespace {

/// Ids are bytes. Every byte sequence encodes, and decodes to itself.
class ByteTokenizer final : public Tokenizer {
 public:
  int64_t vocab_size() const override { return kEndOfText + 1; }
  int32_t end_of_text() const override { return kEndOfText; }
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions&) const override {
    std::vector<int32_t> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  // A model's vocabulary may be larger than the tokenizer's, so ids beyond it can be generated;
  // they have no text.
  std::string decode(const std::vector<int32_t>& ids, const DecodeOptions&) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id >= 0 && id < kEndOfText) text += static_cast<char>(id);
    }
    return text;
  }
  std::string token(int32_t id) const override { return decode({id}, {}); }
  int32_t find(std::string_view token) const override {
    return token.size() == 1 ? static_cast<unsigned char>(token[0]) : -1;
  }
  std::string hash() const override {
    return sha256_hex("tptrain byte tokenizer 1: ids 0-255 are bytes, 256 is end of text");
  }
  bool encodes_piecewise() const override { return true; }

 private:
  static constexpr int32_t kEndOfText = 256;
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace tptrain::tokenizer
