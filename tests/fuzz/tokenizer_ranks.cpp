// The vocabularies that are no tokenizer.json, of any bytes: a tiktoken rank file, and what follows
// a zero byte as merges.txt to what is before it as vocab.json. Each ends with a tokenizer or with
// a DataError.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "tokenizer/bpe_loaders.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::tokenizer;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto encode = [](const Tokenizer& tokenizer) {
    tokenizer.decode(tokenizer.encode("Hello  w\xC3\xB6rld's 123\n\n"));
  };
  // A rank file needs all bytes; they come for nothing here.
  static const std::string bytes = [] {
    constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string lines;
    for (int byte = 0; byte < 256; ++byte) {
      lines += kDigits[byte >> 2];
      lines += kDigits[(byte & 3) << 4];
      lines += "== " + std::to_string(byte) + "\n";
    }
    return lines;
  }();
  try {
    encode(*load_tiktoken_ranks(bytes + std::string(input), "fuzz", llama3_tiktoken_options(4096)));
  } catch (const tptrain::DataError&) {
    // said in words
  }
  try {
    const size_t end = std::min(input.find('\0'), size);
    encode(*load_vocab_and_merges(input.substr(0, end), "vocab.json",
                                  input.substr(std::min(end + 1, size)), "merges.txt", ""));
  } catch (const tptrain::DataError&) {
    // said in words
  }
  return 0;
}
