// A tokenizer.json of any bytes: ends with a tokenizer or with a DataError, within bounds of time
// and memory; and where it is a tokenizer, so do texts. What follows a zero byte is a text to
// encode, since no JSON has one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "tokenizer/bpe_loaders.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::tokenizer;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), size);
  const std::string_view text = input.substr(std::min(end + 1, size));
  try {
    const auto tokenizer = load_tokenizer_json(input.substr(0, end), "fuzz", "");
    for (const std::string_view given :
         {text, std::string_view("Hello  w\xC3\xB6rld's 123\n\n <s> e\xCC\x81 \xE2\x96\x81x")}) {
      try {
        for (const bool special : {false, true}) {
          const auto ids =
              tokenizer->encode(given, {.add_special = special, .special_as_text = special});
          for (const int32_t id : ids) {
            if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
          }
          tokenizer->decode(ids, {.skip_special = special});
        }
      } catch (const tptrain::DataError&) {
        // said in words
      }
    }
  } catch (const tptrain::DataError&) {
    // said in words
  }
  return 0;
}
