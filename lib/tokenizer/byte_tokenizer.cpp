#include "tokenizer/byte_tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "tokenizer/normalizer.h"

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

std::vector<std::pair<std::string, std::string>> byte_tokenizer_files() {
  using Json = nlohmann::ordered_json;
  const char* end = "<|endoftext|>";
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[byte_characters(std::string(1, static_cast<char>(byte)))] = byte;
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  const Json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", Json::array({Json{{"id", 256},
                                                             {"content", end},
                                                             {"single_word", false},
                                                             {"lstrip", false},
                                                             {"rstrip", false},
                                                             {"normalized", false},
                                                             {"special", true}}})},
                          {"normalizer", nullptr},
                          {"pre_tokenizer", byte_level},
                          {"post_processor", nullptr},
                          {"decoder", byte_level},
                          {"model", Json{{"type", "BPE"},
                                         {"dropout", nullptr},
                                         {"unk_token", nullptr},
                                         {"continuing_subword_prefix", nullptr},
                                         {"end_of_word_suffix", nullptr},
                                         {"fuse_unk", false},
                                         {"byte_fallback", false},
                                         {"ignore_merges", false},
                                         {"vocab", vocab},
                                         {"merges", Json::array()}}}};
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"eos_token", end},
                       {"split_special_tokens", true},
                       {"clean_up_tokenization_spaces", false}};
  return {{"tokenizer.json", tokenizer.dump(1) + "\n"},
          {"tokenizer_config.json", config.dump(2) + "\n"}};
}

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace tptrain::tokenizer
