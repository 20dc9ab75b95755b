// Fuzzes the reader of safetensors headers: whatever the bytes, they are refused with a DataError,
// or what they say fits the file and survives being written and read again.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"
#include "formats/safetensors_header.h"

namespace {

using tptrain::formats::SafetensorsHeader;

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const SafetensorsHeader& header, int64_t file_bytes) {
  int64_t end = 0;
  for (const auto& entry : header.entries) {
    require(entry.offset_bytes == end && entry.size_bytes >= 0);
    end += entry.size_bytes;
  }
  require(header.data_begin + end == file_bytes);
}

void read(std::span<const std::byte> file) {
  try {
    SafetensorsHeader header = tptrain::formats::read_safetensors_header(file, "fuzz");
    check(header, static_cast<int64_t>(file.size()));
    std::string again(8, '\0');
    again += tptrain::formats::make_safetensors_header(header.entries, header.metadata);
    const uint64_t length = again.size() - 8;
    std::memcpy(again.data(), &length, sizeof length);
    again.append(file.size() - static_cast<size_t>(header.data_begin), '\0');
    const SafetensorsHeader same =
        tptrain::formats::read_safetensors_header(std::as_bytes(std::span(again)), "again");
    require(same.entries.size() == header.entries.size() && same.metadata == header.metadata);
  } catch (const tptrain::DataError&) {
    // A refusal is one of the right answers.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  read(std::as_bytes(std::span(data, size)));
  if (size < 2) return 0;
  // And as a header alone, with its right length before it and 0 to 65,535 bytes of tensors behind
  // it: from bytes as they are, hardly any would get as far as the JSON.
  uint16_t data_bytes = 0;
  std::memcpy(&data_bytes, data, sizeof data_bytes);
  const uint64_t length = size - 2;
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  file.append(reinterpret_cast<const char*>(data) + 2, size - 2);
  file.append(data_bytes, '\0');
  read(std::as_bytes(std::span(file)));
  return 0;
}
