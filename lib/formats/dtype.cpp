#include "formats/dtype.h"

#include <algorithm>
#include <array>

namespace tptrain::formats {

namespace {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  int64_t bits;
};
// In the order of the enumeration. The list is that of safetensors 0.8.
constexpr std::array<DtypeRow, 22> kDtypes{{{Dtype::boolean, "BOOL", 8},
                                            {Dtype::u8, "U8", 8},
                                            {Dtype::i8, "I8", 8},
                                            {Dtype::f8_e5m2, "F8_E5M2", 8},
                                            {Dtype::f8_e4m3, "F8_E4M3", 8},
                                            {Dtype::f8_e8m0, "F8_E8M0", 8},
                                            {Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
                                            {Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
                                            {Dtype::i16, "I16", 16},
                                            {Dtype::u16, "U16", 16},
                                            {Dtype::f16, "F16", 16},
                                            {Dtype::bf16, "BF16", 16},
                                            {Dtype::i32, "I32", 32},
                                            {Dtype::u32, "U32", 32},
                                            {Dtype::f32, "F32", 32},
                                            {Dtype::f64, "F64", 64},
                                            {Dtype::c64, "C64", 64},
                                            {Dtype::i64, "I64", 64},
                                            {Dtype::u64, "U64", 64},
                                            {Dtype::f4, "F4", 4},
                                            {Dtype::f6_e2m3, "F6_E2M3", 6},
                                            {Dtype::f6_e3m2, "F6_E3M2", 6}}};

constexpr bool in_order() {
  for (size_t i = 0; i < kDtypes.size(); ++i) {
    if (static_cast<size_t>(kDtypes[i].dtype) != i) return false;
  }
  return true;
}
static_assert(in_order());

}  // namespace

std::string_view dtype_name(Dtype dtype) { return kDtypes.at(static_cast<size_t>(dtype)).name; }
int64_t dtype_bits(Dtype dtype) { return kDtypes.at(static_cast<size_t>(dtype)).bits; }

std::optional<Dtype> find_dtype(std::string_view name) {
  const auto row = std::find_if(kDtypes.begin(), kDtypes.end(),
                                [&](const DtypeRow& known) { return known.name == name; });
  if (row == kDtypes.end()) return std::nullopt;
  return row->dtype;
}

std::vector<std::string_view> dtype_names() {
  std::vector<std::string_view> names;
  for (const DtypeRow& row : kDtypes) names.push_back(row.name);
  return names;
}

std::optional<int64_t> tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape) {
  int64_t bits = dtype_bits(dtype);
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bits, extent, &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

}  // namespace tptrain::formats
