// Fuzzes the index of Megatron's token files: whatever the bytes, it is refused with a DataError,
// or lists documents that lie end to end within its .bin. The first 8 bytes are the size of that.
#include "formats/indexed_tokens.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int64_t bin_bytes = 0;
  if (size < sizeof bin_bytes) return 0;
  std::memcpy(&bin_bytes, data, sizeof bin_bytes);
  bin_bytes &= (int64_t{1} << 50) - 1;
  const std::string_view index(reinterpret_cast<const char*>(data) + sizeof bin_bytes,
                               size - sizeof bin_bytes);
  try {
    const auto header = tptrain::formats::decode_indexed_index(index, bin_bytes, "fuzz.idx");
    if (header.tokens * tptrain::formats::bytes_of(header.type) != bin_bytes) std::abort();
    int64_t last = 0;
    for (const int64_t end : header.document_ends) {
      if (end <= last) std::abort();
      last = end;
    }
    if (last != header.tokens) std::abort();
  } catch (const tptrain::DataError&) {
    // A refusal is one of the right answers.
  }
  return 0;
}
