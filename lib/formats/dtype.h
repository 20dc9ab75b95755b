// Element types as safetensors files name them, and how many bits each takes. No arithmetic:
// float_convert.h turns the three kinds that weights have into fp32 and back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::formats {

enum class Dtype {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e5m2fnuz,
  f8_e4m3fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  f64,
  c64,
  i64,
  u64,
  f4,  // the three of less than a byte are packed: a tensor of them fills whole bytes
  f6_e2m3,
  f6_e3m2,
};

/// As the format spells it: "BF16".
std::string_view dtype_name(Dtype dtype);
/// Nothing where the format has no such name.
std::optional<Dtype> find_dtype(std::string_view name);
std::vector<std::string_view> dtype_names();
int64_t dtype_bits(Dtype dtype);

/// Bytes of a tensor. Nothing where the product leaves int64, an extent is negative, or the
/// elements do not fill whole bytes.
std::optional<int64_t> tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape);

}  // namespace tptrain::formats
