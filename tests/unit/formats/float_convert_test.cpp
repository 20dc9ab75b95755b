// bf16 and f16 <-> fp32: every half there and back, rounding against arithmetic that shares nothing
// with the code, NaNs, and bytes at odd addresses.
#include "formats/float_convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using formats::Dtype;

// A binary floating-point type with `fraction` bits and exponents from `lowest` (of normal numbers)
// to `highest`, rounded to nearest even: by scaling and nearbyint, in double.
double rounded(float value, int fraction, int lowest, int highest) {
  if (!std::isfinite(value) || value == 0) return value;
  const int exponent = std::max(std::ilogb(value), lowest);
  const double quantum = std::ldexp(1.0, exponent - fraction);
  const double result = std::nearbyint(static_cast<double>(value) / quantum) * quantum;
  const double limit = std::ldexp(1.0, highest + 1);
  return std::abs(result) >= limit ? std::copysign(INFINITY, result) : result;
}

uint16_t narrowed(Dtype dtype, float value) {
  uint16_t half = 0;
  formats::from_float32(dtype, &value, reinterpret_cast<std::byte*>(&half), 1);
  return half;
}

float widened(Dtype dtype, uint16_t half) {
  float value = 0;
  formats::to_float32(dtype, reinterpret_cast<const std::byte*>(&half), &value, 1);
  return value;
}

TEST_CASE("every bf16 and every f16 comes back from fp32 as it was, NaN payloads included") {
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    std::vector<uint16_t> halves(65'536);
    for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
    // One byte off: the tensors of a file lie anywhere.
    std::vector<std::byte> bytes(2 * halves.size() + 1);
    std::memcpy(bytes.data() + 1, halves.data(), 2 * halves.size());
    std::vector<float> values(halves.size());
    formats::to_float32(dtype, bytes.data() + 1, values.data(), 65'536);
    std::vector<std::byte> back(bytes.size());
    formats::from_float32(dtype, values.data(), back.data() + 1, 65'536);
    CHECK(std::memcmp(back.data() + 1, halves.data(), 2 * halves.size()) == 0);
  }
}

TEST_CASE("fp32 is the value that the half stands for") {
  CHECK(widened(Dtype::bf16, 0x3f80) == 1.0f);
  CHECK(widened(Dtype::bf16, 0x0001) == 0x1p-133f);
  CHECK(widened(Dtype::bf16, 0xff80) == -INFINITY);
  int64_t wrong = 0;
  for (uint32_t half = 0; half < 65'536; ++half) {
    const uint32_t exponent = (half >> 10) & 31;
    const double fraction = half & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                             : exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                              : std::ldexp(1024 + fraction, int(exponent) - 25);
    const float expected = static_cast<float>((half & 0x8000) != 0 ? -magnitude : magnitude);
    const float value = widened(Dtype::f16, static_cast<uint16_t>(half));
    const bool same = std::isnan(expected)
                          ? std::isnan(value)
                          : value == expected && std::signbit(value) == std::signbit(expected);
    wrong += same ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("fp32 is rounded to the nearest half, ties to even") {
  std::vector<float> values;
  // 9973 is prime: all exponents, and fractions without a pattern; then all ties and their
  // neighbours near both ends of the f16 range.
  for (uint64_t bits = 0; bits <= 0xffffffffU; bits += 9'973) {
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  }
  for (const uint32_t around : {0x33000000U, 0x33800000U, 0x38800000U, 0x387fe000U, 0x477fe000U,
                                0x477ff000U, 0x7f7f0000U, 0x7f7f8000U, 0x00008000U, 0x00018000U}) {
    for (uint32_t delta = 0; delta < 5; ++delta) {
      values.push_back(std::bit_cast<float>(around + delta - 2));
    }
  }
  int64_t wrong = 0;
  for (const float value : values) {
    const float bf16 = widened(Dtype::bf16, narrowed(Dtype::bf16, value));
    const float f16 = widened(Dtype::f16, narrowed(Dtype::f16, value));
    if (std::isnan(value)) {
      wrong += std::isnan(bf16) && std::isnan(f16) ? 0 : 1;
      continue;
    }
    wrong += bf16 == rounded(value, 7, -126, 127) ? 0 : 1;
    wrong += f16 == rounded(value, 10, -14, 15) ? 0 : 1;
    wrong += std::signbit(bf16) == std::signbit(value) && std::signbit(f16) == std::signbit(value)
                 ? 0
                 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a NaN whose payload does not fit stays a NaN") {
  const float low_payload = std::bit_cast<float>(0x7f800001U);
  CHECK(narrowed(Dtype::bf16, low_payload) == 0x7fc0);
  CHECK(narrowed(Dtype::f16, low_payload) == 0x7e00);
}

TEST_CASE("fp32 itself is copied, and other types are refused") {
  const float value = -0.0f;
  std::vector<std::byte> bytes(5);
  formats::from_float32(Dtype::f32, &value, bytes.data() + 1, 1);
  float back = 1;
  formats::to_float32(Dtype::f32, bytes.data() + 1, &back, 1);
  CHECK(std::signbit(back));
  CHECK(formats::is_weight_dtype(Dtype::f16));
  CHECK_FALSE(formats::is_weight_dtype(Dtype::f64));
  CHECK(has(
      message_of<InternalError>([&] { formats::to_float32(Dtype::i8, bytes.data(), &back, 1); }),
      "conversion of I8: it must be of F32, BF16 or F16"));
  CHECK(has(
      message_of<InternalError>([&] { formats::from_float32(Dtype::f64, &back, bytes.data(), 1); }),
      "conversion of F64"));
}

}  // namespace
}  // namespace tptrain::testing
