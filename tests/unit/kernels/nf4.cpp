// NF4 against bitsandbytes (scripts/golden/nf4.py), and a slice against the whole.
#include "kernels/nf4.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "kernels/reference.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using kernels::Nf4Blocks;
using kernels::Nf4Matrix;

constexpr int64_t kRows = 96, kColumns = 320, kNumel = kRows * kColumns;

const formats::SafetensorsFile& golden() {
  static const formats::SafetensorsFile file(TPTRAIN_GOLDEN_NF4);
  return file;
}

template <typename T>
std::vector<T> values_of(const std::string& name) {
  const auto bytes = golden().bytes(*golden().find(name));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

template <typename T>
at::Tensor tensor_of(const std::vector<T>& values, at::ScalarType type) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, type);
  std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor.to(device());
}

std::vector<float> maxima_of(const std::vector<float>& values) {
  kernels::Nf4Maxima maxima(static_cast<int64_t>(values.size()));
  const int64_t half = static_cast<int64_t>(values.size()) / 128 * 64;
  maxima.add(values.data(), half);  // as they come, piece by piece
  maxima.add(values.data() + half, static_cast<int64_t>(values.size()) - half);
  return maxima.of_blocks();
}

/// `rows` x `columns` of the golden matrix from (row, column) on; cut between blocks.
Nf4Matrix matrix_of(int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const std::vector<float> all = values_of<float>("values");
  const std::vector<float> maxima = maxima_of(all);
  const kernels::Nf4Scales scales = kernels::nf4_scales(maxima);
  Nf4Matrix matrix;
  matrix.elements = rows * columns;
  matrix.offset = scales.offset;
  matrix.blocks = {.first = (row * kColumns + column) / kernels::kNf4Block,
                   .run = columns / kernels::kNf4Block,
                   .stride = kColumns / kernels::kNf4Block};
  std::vector<float> values, own_maxima;
  std::vector<uint8_t> own_scales;
  for (int64_t r = row; r < row + rows; ++r) {
    const auto from = all.begin() + r * kColumns + column;
    values.insert(values.end(), from, from + columns);
  }
  for (int64_t block = 0; block < kernels::nf4_blocks(matrix.elements); ++block) {
    const auto whole = static_cast<size_t>(matrix.blocks.whole(block));
    own_maxima.push_back(maxima[whole]);
    own_scales.push_back(scales.of_blocks[whole]);
  }
  std::vector<uint8_t> codes(values.size() / 2);
  kernels::nf4_codes(values.data(), matrix.elements, own_maxima.data(), codes.data());
  matrix.codes = tensor_of(codes, at::kByte);
  matrix.scales = tensor_of(own_scales, at::kByte);
  matrix.groups = tensor_of(scales.of_groups, at::kFloat);
  const auto& map = kernels::dynamic_map();
  matrix.map = tensor_of(std::vector<float>(map.begin(), map.end()), at::kFloat);
  return matrix;
}

at::Tensor expanded(const Nf4Matrix& matrix, at::ScalarType type) {
  at::Tensor out = at::empty({matrix.elements}, at::TensorOptions(device()).dtype(type));
  kernels::nf4_values_out(out, matrix);
  return out.cpu();
}

double relative_difference(double a, double b) { return std::abs(a / b - 1); }

at::Tensor dequantised() {
  const std::vector<float> values = values_of<float>("dequantised");
  return at::tensor(values, at::kFloat).view({kRows, kColumns});
}

TEST_CASE("the dynamic map is bitsandbytes'") {
  const std::vector<float> expected = values_of<float>("map");
  const auto& map = kernels::dynamic_map();
  CHECK(std::vector<float>(map.begin(), map.end()) == expected);
}

// bitsandbytes takes the mean of the scales in fp32, in an order of its own, and its search on CPUs
// does not always take the nearest of the 256: a scale in 48 is one step further there.
TEST_CASE("codes, scales and values are bitsandbytes'") {
  const kernels::Nf4Scales scales = kernels::nf4_scales(maxima_of(values_of<float>("values")));
  const std::vector<uint8_t> bytes = values_of<uint8_t>("scales");
  const std::vector<float> groups = values_of<float>("groups");
  CHECK(relative_difference(scales.offset, values_of<float>("offset").front()) < 1e-6);
  REQUIRE(scales.of_groups.size() == groups.size());
  for (size_t i = 0; i < groups.size(); ++i) {
    CHECK(relative_difference(scales.of_groups[i], groups[i]) < 1e-6);
  }
  const Nf4Matrix matrix = matrix_of(0, kRows, 0, kColumns);
  CHECK(at::equal(matrix.codes.cpu(), at::tensor(values_of<uint8_t>("codes"), at::kByte)));
  const at::Tensor values = expanded(matrix, at::kFloat);
  const at::Tensor expected = dequantised().flatten();
  REQUIRE(scales.of_blocks.size() == bytes.size());
  int others = 0;
  for (size_t block = 0; block < bytes.size(); ++block) {
    const int step = std::abs(int{scales.of_blocks[block]} - int{bytes[block]});
    others += step;
    CHECK(step <= 1);
    const auto first = static_cast<int64_t>(block) * kernels::kNf4Block;
    const at::Tensor of_block = expected.narrow(0, first, kernels::kNf4Block);
    const double difference =
        (values.narrow(0, first, kernels::kNf4Block) - of_block).abs().max().item<double>();
    // The widest gap of the map is 0.0141.
    CHECK(difference <= 1e-6 + (step == 0 ? 0 : 0.0142 * groups[block / kernels::kNf4Group]));
  }
  CHECK(others <= 12);  // of 480
  CHECK(at::equal(expanded(matrix, at::kBFloat16), values.to(at::kBFloat16)));
}

TEST_CASE("a slice cut between blocks has the values of the whole") {
  const at::Tensor whole =
      expanded(matrix_of(0, kRows, 0, kColumns), at::kFloat).view({kRows, kColumns});
  struct Cut {
    int64_t row, rows, column, columns;
  };
  for (const Cut& cut :
       {Cut{0, 96, 0, 128}, Cut{0, 96, 128, 192}, Cut{37, 20, 0, 320}, Cut{95, 1, 256, 64}}) {
    CAPTURE(cut.row, cut.column);
    const Nf4Matrix matrix = matrix_of(cut.row, cut.rows, cut.column, cut.columns);
    const at::Tensor expected = whole.narrow(0, cut.row, cut.rows)
                                    .narrow(1, cut.column, cut.columns)
                                    .contiguous()
                                    .flatten();
    CHECK(at::equal(expanded(matrix, at::kFloat), expected));
  }
}

TEST_CASE("a tensor that ends within a block, or within a byte") {
  const std::vector<float> values = values_of<float>("values");
  for (const int64_t count : {1, 63, 65, 129, 24 * 24 + 1}) {
    CAPTURE(count);
    const std::vector<float> part(values.begin() + 3200, values.begin() + 3200 + count);
    const std::vector<float> maxima = maxima_of(part);
    const kernels::Nf4Scales scales = kernels::nf4_scales(maxima);
    std::vector<uint8_t> codes(static_cast<size_t>((count + 1) / 2));
    kernels::nf4_codes(part.data(), count, maxima.data(), codes.data());
    const auto& map = kernels::dynamic_map();
    const int64_t blocks = kernels::nf4_blocks(count);
    const Nf4Matrix matrix = {
        .codes = tensor_of(codes, at::kByte),
        .scales = tensor_of(scales.of_blocks, at::kByte),
        .groups = tensor_of(scales.of_groups, at::kFloat),
        .map = tensor_of(std::vector<float>(map.begin(), map.end()), at::kFloat),
        .offset = scales.offset,
        .blocks = {.first = 0, .run = blocks, .stride = blocks},
        .elements = count};
    const at::Tensor out = expanded(matrix, at::kFloat);
    // Half the widest gap between two of the 16 values, and of the 256 of a scale.
    for (int64_t i = 0; i < count; ++i) {
      const float scale = maxima[static_cast<size_t>(i / 64)];
      CHECK(std::abs(out[i].item<float>() - part[static_cast<size_t>(i)]) <=
            0.153f * scale + 0.0071f * scales.of_groups[0]);
    }
  }
}

}  // namespace
}  // namespace tptrain::testing
