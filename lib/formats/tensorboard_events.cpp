#include "formats/tensorboard_events.h"

#include <array>
#include <bit>
#include <cstring>

namespace tptrain::formats {

static_assert(std::endian::native == std::endian::little,
              "event files are little-endian and written as numbers lie in memory");

namespace {

// Fields of the messages, by their numbers in event.proto and summary.proto.
enum Field : uint32_t {
  kWallTime = 1,     // Event, double
  kStep = 2,         // Event, varint
  kFileVersion = 3,  // Event, text
  kSummary = 5,      // Event, message
  kSessionLog = 7,   // Event, message
  kStatus = 1,       // SessionLog, varint
  kValue = 1,        // Summary, message, repeated
  kTag = 1,          // Value, text
  kSimpleValue = 2,  // Value, float
};
constexpr uint64_t kSessionStart = 1;

// Protocol buffers: a key is the field's number and its wire type.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kDelimited = 2, kFixed32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, uint32_t field, WireType type) {
  put_varint(out, field << 3 | type);
}

template <typename T>
void put_bytes_of(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_delimited(std::string& out, uint32_t field, std::string_view bytes) {
  put_key(out, field, kDelimited);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event(double wall_time_s, int64_t step) {
  std::string out;
  put_key(out, kWallTime, kFixed64);
  put_bytes_of(out, wall_time_s);
  put_key(out, kStep, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}

// TFRecord stores checksums turned and shifted, so that the checksum of a record that holds
// checksums is not degenerate.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

std::string record(std::string_view data) {
  std::string out;
  put_bytes_of(out, static_cast<uint64_t>(data.size()));
  put_bytes_of(out, masked_crc(out));
  out += data;
  put_bytes_of(out, masked_crc(data));
  return out;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = crc_table();
  uint32_t crc = ~0u;
  for (const char byte : bytes)
    crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

std::string tensorboard_file_version(double wall_time_s) {
  std::string out = event(wall_time_s, 0);
  put_delimited(out, kFileVersion, "brain.Event:2");
  return record(out);
}

std::string tensorboard_restart(double wall_time_s, int64_t step) {
  std::string log;
  put_key(log, kStatus, kVarint);
  put_varint(log, kSessionStart);
  std::string out = event(wall_time_s, step);
  put_delimited(out, kSessionLog, log);
  return record(out);
}

std::string tensorboard_scalars(double wall_time_s, int64_t step,
                                std::span<const TensorboardScalar> scalars) {
  std::string summary;
  for (const TensorboardScalar& scalar : scalars) {
    std::string value;
    put_delimited(value, kTag, scalar.tag);
    put_key(value, kSimpleValue, kFixed32);
    put_bytes_of(value, static_cast<float>(scalar.value));
    put_delimited(summary, kValue, value);
  }
  std::string out = event(wall_time_s, step);
  put_delimited(out, kSummary, summary);
  return record(out);
}

}  // namespace tptrain::formats
