// A sentencepiece model of any bytes: a tokenizer that encodes and decodes, or a DataError. The
// library itself is not instrumented; what it is given is checked before (sentencepiece_file.h).
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "tokenizer/sentencepiece_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::tokenizer;
  try {
    const auto tokenizer =
        load_sentencepiece(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz", {});
    tokenizer->decode(tokenizer->encode("Hello  <s>wörld</s> 日本\n", {.add_special = true}));
  } catch (const tptrain::DataError&) {
    // said in words
  }
  return 0;
}
