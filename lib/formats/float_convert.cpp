// Compiled with -O3 (CMakeLists.txt): the loops are written for the vectorizer, without branches.
#include "formats/float_convert.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/bf16.h"
#include "base/error.h"
#include "base/text.h"

// One version of a loop for every x86 processor and one for those with AVX2, chosen when the
// program starts. Not under ThreadSanitizer: what chooses would run before its memory is there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define TPTRAIN_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define TPTRAIN_VECTOR_CLONES
#endif

namespace tptrain::formats {

namespace {

// Elements converted at once by way of an aligned array: the bytes of a file have any alignment.
constexpr int64_t kBlock = 1024;
using Halves = std::array<uint16_t, kBlock>;
using Singles = std::array<uint32_t, kBlock>;
using Doubles = std::array<double, kBlock>;

TPTRAIN_VECTOR_CLONES void widen_bf16(const uint16_t* from, uint32_t* to) {
  for (int64_t i = 0; i < kBlock; ++i) to[i] = static_cast<uint32_t>(from[i]) << 16;
}

TPTRAIN_VECTOR_CLONES void narrow_bf16(const uint32_t* from, uint16_t* to) {
  for (int64_t i = 0; i < kBlock; ++i) to[i] = bf16_of(std::bit_cast<float>(from[i]));
}

// f16: 1 sign, 5 exponent (bias 15), 10 fraction bits; fp32: 1, 8 (bias 127), 23.
TPTRAIN_VECTOR_CLONES void widen_f16(const uint16_t* from, uint32_t* to) {
  for (int64_t i = 0; i < kBlock; ++i) {
    const uint32_t half = from[i];
    const uint32_t magnitude = half & 0x7fffU;
    const uint32_t normal = (magnitude << 13) + (112U << 23);   // 112 = 127 - 15
    const uint32_t special = (magnitude << 13) + (224U << 23);  // exponent 31 becomes 255
    const uint32_t subnormal =                                  // fraction * 2^-24, exactly
        std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24F);
    uint32_t bits = magnitude < 0x400U ? subnormal : normal;
    bits = magnitude >= 0x7c00U ? special : bits;
    to[i] = bits | ((half & 0x8000U) << 16);
  }
}

TPTRAIN_VECTOR_CLONES void narrow_f16(const uint32_t* from, uint16_t* to) {
  for (int64_t i = 0; i < kBlock; ++i) {
    const uint32_t magnitude = from[i] & 0x7fffffffU;
    const uint32_t rebased = magnitude - (112U << 23);
    const uint32_t normal = (rebased + 0xfffU + ((rebased >> 13) & 1U)) >> 13;
    // Below 2^-14 the sum with 0.5, whose last place is 2^-24 as that of a subnormal f16, rounds.
    const float shifted = std::bit_cast<float>(magnitude < 0x38800000U ? magnitude : 0U) + 0.5F;
    const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000U;
    const uint32_t payload = (magnitude >> 13) & 0x3ffU;
    const uint32_t nan = 0x7c00U | payload | (payload == 0 ? 0x200U : 0U);
    uint32_t half = magnitude < 0x38800000U ? subnormal : normal;
    half = magnitude >= 0x477ff000U ? 0x7c00U : half;  // 65520 and more round to infinity
    half = magnitude > 0x7f800000U ? nan : half;
    to[i] = static_cast<uint16_t>(half | ((from[i] >> 16) & 0x8000U));
  }
}

TPTRAIN_VECTOR_CLONES void narrow_f64(const double* from, uint32_t* to) {
  for (int64_t i = 0; i < kBlock; ++i) to[i] = std::bit_cast<uint32_t>(static_cast<float>(from[i]));
}

template <typename From, typename To, typename Convert>
void convert_blocks(const std::byte* from, std::byte* to, int64_t count, Convert convert) {
  From in = {};
  To out = {};
  constexpr size_t kFromBytes = sizeof(in[0]);
  constexpr size_t kToBytes = sizeof(out[0]);
  for (int64_t done = 0; done < count; done += kBlock) {
    const auto n = static_cast<size_t>(std::min(kBlock, count - done));
    std::memcpy(in.data(), from + static_cast<size_t>(done) * kFromBytes, n * kFromBytes);
    convert(in.data(), out.data());
    std::memcpy(to + static_cast<size_t>(done) * kToBytes, out.data(), n * kToBytes);
  }
}

[[noreturn]] void refuse(Dtype dtype) {
  throw InternalError(problem(cat("conversion of ", dtype_name(dtype)))
                          .must("be of F32, BF16 or F16: other types are no weights"));
}

}  // namespace

bool is_weight_dtype(Dtype dtype) {
  return dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16;
}

bool is_readable_dtype(Dtype dtype) { return is_weight_dtype(dtype) || dtype == Dtype::f64; }

void to_float32(Dtype dtype, const std::byte* from, float* to, int64_t count) {
  if (count == 0) return;  // the pointers may be null then
  auto* target = reinterpret_cast<std::byte*>(to);
  switch (dtype) {
    case Dtype::f32:
      std::memcpy(target, from, static_cast<size_t>(count) * sizeof(float));
      return;
    case Dtype::bf16:
      return convert_blocks<Halves, Singles>(from, target, count, widen_bf16);
    case Dtype::f16:
      return convert_blocks<Halves, Singles>(from, target, count, widen_f16);
    case Dtype::f64:
      return convert_blocks<Doubles, Singles>(from, target, count, narrow_f64);
    default:
      refuse(dtype);
  }
}

void from_float32(Dtype dtype, const float* from, std::byte* to, int64_t count) {
  if (count == 0) return;
  const auto* source = reinterpret_cast<const std::byte*>(from);
  switch (dtype) {
    case Dtype::f32:
      std::memcpy(to, source, static_cast<size_t>(count) * sizeof(float));
      return;
    case Dtype::bf16:
      return convert_blocks<Singles, Halves>(source, to, count, narrow_bf16);
    case Dtype::f16:
      return convert_blocks<Singles, Halves>(source, to, count, narrow_f16);
    default:
      refuse(dtype);
  }
}

}  // namespace tptrain::formats
