// TensorBoard's event files byte by byte; the real package reads them in e2e_tools_tensorboard.
#include "formats/tensorboard_events.h"

#include <array>
#include <cstring>

#include "support/catch.h"

namespace tptrain::formats {

TEST_CASE("CRC-32C has the values of RFC 3720", "[formats]") {
  CHECK(crc32c("") == 0);
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62A8AB43u);
}

TEST_CASE("a record is its length, the data and a checksum of either", "[formats]") {
  const std::string record = tensorboard_file_version(0.0);
  // wall_time (field 1, 64 bits) 0, step (2, varint) 0, file_version (3, text).
  std::string data = "\x09" + std::string(8, '\0') + "\x10" + std::string(1, '\0') + "\x1a\x0d";
  data += "brain.Event:2";
  uint64_t length = 0;
  std::memcpy(&length, record.data(), sizeof length);
  CHECK(length == data.size());
  CHECK(record.size() == 8 + 4 + data.size() + 4);
  CHECK(record.substr(12, data.size()) == data);
  const auto masked = [](std::string_view bytes) {
    const uint32_t crc = crc32c(bytes);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
  };
  uint32_t of_length = 0, of_data = 0;
  std::memcpy(&of_length, record.data() + 8, 4);
  std::memcpy(&of_data, record.data() + 12 + data.size(), 4);
  CHECK(of_length == masked(record.substr(0, 8)));
  CHECK(of_data == masked(data));
}

TEST_CASE("a scalar is a value of a summary, with its tag and an fp32 number", "[formats]") {
  const std::array<TensorboardScalar, 1> one = {{{"a/b", 1.5}}};
  const std::string record = tensorboard_scalars(0.0, 300, one);
  // step 300 as a varint; summary (5) of one value (1): tag (1), simple_value (2, 32 bits).
  const std::string expected = std::string("\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03") + "a/b" +
                               "\x15" + std::string("\0\0\xc0\x3f", 4);
  CHECK(record.substr(12 + 9, expected.size()) == expected);
}

}  // namespace tptrain::formats
