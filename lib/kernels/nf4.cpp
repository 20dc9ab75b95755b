#include "kernels/nf4.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/composition.h"
#include "kernels/cuda/nf4.h"

namespace tptrain::kernels {

namespace {

// The index of the nearest of `sorted` values; of two that are equally near, the lower.
template <size_t kSize>
uint8_t nearest(const std::array<float, kSize>& sorted, float value) {
  const auto above = std::lower_bound(sorted.begin(), sorted.end(), value);
  if (above == sorted.begin()) return 0;
  if (above == sorted.end()) return kSize - 1;
  const auto below = above - 1;
  return static_cast<uint8_t>((value - *below <= *above - value ? below : above) - sorted.begin());
}

// Seven decades with 1, 2, 4 .. 64 values each, the middles of equal parts of [0.1, 1] times the
// decade, of both signs; 0 and 1.
std::array<float, 256> make_dynamic_map() {
  std::array<float, 256> map{};
  size_t at = 0;
  for (int decade = 0; decade < 7; ++decade) {
    const int parts = 1 << decade;
    const auto power = static_cast<float>(std::pow(10.0, decade - 6));
    const float step = 0.9f / static_cast<float>(parts);
    const auto boundary = [&](int i) {  // as torch.linspace: from either end to the middle
      return i < (parts + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1f)
                                 : std::fma(-step, static_cast<float>(parts - i), 1.0f);
    };
    for (int i = 0; i < parts; ++i) {
      const float middle = (boundary(i) + boundary(i + 1)) / 2.0f;
      map[at++] = power * middle;
      map[at++] = -(power * middle);
    }
  }
  map[at++] = 0.0f;
  map[at++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

template <typename T>
void write_block(const uint8_t* codes, int64_t count, float scale, T* out) {
  std::array<T, 16> values;
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(kNf4Values[i] * scale);
  for (int64_t i = 0; i + 1 < count; i += 2) {
    const uint8_t pair = codes[i / 2];
    out[i] = values[pair >> 4];
    out[i + 1] = values[pair & 15];
  }
  if (count % 2 == 1) out[count - 1] = values[codes[count / 2] >> 4];
}

template <typename T>
void write_values(const Nf4Matrix& matrix, T* out) {
  const uint8_t* codes = matrix.codes.const_data_ptr<uint8_t>();
  const uint8_t* scales = matrix.scales.const_data_ptr<uint8_t>();
  const float* groups = matrix.groups.const_data_ptr<float>();
  const std::array<float, 256>& map = dynamic_map();
  cpu::parallel_rows(
      nf4_blocks(matrix.elements), cpu::grain_of(kNf4Block), [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          const float group = groups[matrix.blocks.whole(block) / kNf4Group];
          const float scaled = map[scales[block]] * group;
          const int64_t first = block * kNf4Block;
          write_block(codes + first / 2, std::min(kNf4Block, matrix.elements - first),
                      scaled + matrix.offset, out + first);
        }
      });
}

}  // namespace

const std::array<float, 16> kNf4Values = {-1.0f,
                                          -0.6961928009986877f,
                                          -0.5250730514526367f,
                                          -0.39491748809814453f,
                                          -0.28444138169288635f,
                                          -0.18477343022823334f,
                                          -0.09105003625154495f,
                                          0.0f,
                                          0.07958029955625534f,
                                          0.16093020141124725f,
                                          0.24611230194568634f,
                                          0.33791524171829224f,
                                          0.44070982933044434f,
                                          0.5626170039176941f,
                                          0.7229568362236023f,
                                          1.0f};

const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> map = make_dynamic_map();
  return map;
}

int64_t nf4_blocks(int64_t elements) { return (elements + kNf4Block - 1) / kNf4Block; }

int64_t nf4_bytes(int64_t elements, int64_t whole_elements) {
  const int64_t groups = (nf4_blocks(whole_elements) + kNf4Group - 1) / kNf4Group;
  return (elements + 1) / 2 + nf4_blocks(elements) + groups * static_cast<int64_t>(sizeof(float));
}

Nf4Maxima::Nf4Maxima(int64_t elements) : maxima_(static_cast<size_t>(nf4_blocks(elements))) {}

void Nf4Maxima::add(const float* values, int64_t count) {
  const int64_t first = filled_;
  cpu::parallel_rows(nf4_blocks(count), cpu::grain_of(kNf4Block), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      float largest = 0;
      for (int64_t i = block * kNf4Block; i < std::min(count, (block + 1) * kNf4Block); ++i) {
        largest = std::max(largest, std::abs(values[i]));
      }
      maxima_.at(static_cast<size_t>(first + block)) = largest;
    }
  });
  filled_ += nf4_blocks(count);
}

Nf4Scales nf4_scales(const std::vector<float>& maxima) {
  Nf4Scales scales;
  const double sum = std::accumulate(maxima.begin(), maxima.end(), 0.0);
  if (!maxima.empty()) scales.offset = static_cast<float>(sum / static_cast<double>(maxima.size()));
  scales.of_blocks.resize(maxima.size());
  for (size_t first = 0; first < maxima.size(); first += kNf4Group) {
    const size_t end = std::min(maxima.size(), first + kNf4Group);
    float largest = 0;
    for (size_t i = first; i < end; ++i) {
      largest = std::max(largest, std::abs(maxima[i] - scales.offset));
    }
    scales.of_groups.push_back(largest);
    for (size_t i = first; i < end; ++i) {
      const float scaled = largest > 0 ? (maxima[i] - scales.offset) / largest : 0.0f;
      scales.of_blocks[i] = nearest(dynamic_map(), scaled);
    }
  }
  return scales;
}

void nf4_codes(const float* values, int64_t count, const float* maxima, uint8_t* codes) {
  cpu::parallel_rows(nf4_blocks(count), cpu::grain_of(kNf4Block), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const float largest = maxima[block];
      const auto code = [&](int64_t i) {
        return nearest(kNf4Values, largest > 0 ? values[i] / largest : 0.0f);
      };
      const int64_t last = std::min(count, (block + 1) * kNf4Block);
      for (int64_t i = block * kNf4Block; i < last; i += 2) {
        const int lower = i + 1 < last ? code(i + 1) : 0;
        codes[i / 2] = static_cast<uint8_t>(code(i) << 4 | lower);
      }
    }
  });
}

void nf4_values_out(at::Tensor& out, const Nf4Matrix& matrix) {
  expect_contiguous(out, "nf4_values_out");
  expect(out.numel() == matrix.elements, "nf4_values_out", "have the matrix's elements",
         out.sizes());
  if (matrix.elements == 0) return;
  if (takes_cuda_kernels(out)) {
    cuda::Nf4 arguments = {.codes = matrix.codes.const_data_ptr<uint8_t>(),
                           .scales = matrix.scales.const_data_ptr<uint8_t>(),
                           .groups = matrix.groups.const_data_ptr<float>(),
                           .map = matrix.map.const_data_ptr<float>(),
                           .offset = matrix.offset,
                           .first = matrix.blocks.first,
                           .run = matrix.blocks.run,
                           .stride = matrix.blocks.stride,
                           .elements = matrix.elements};
    std::copy(kNf4Values.begin(), kNf4Values.end(), arguments.values);
    cuda::nf4_values(arguments, element_of(out), out.mutable_data_ptr(), cuda::stream_of(out));
    cuda::check_launch("nf4_values");
    return;
  }
  if (out.scalar_type() == at::kBFloat16) {
    write_values(matrix, out.mutable_data_ptr<at::BFloat16>());
  } else {
    write_values(matrix, out.mutable_data_ptr<float>());
  }
}

}  // namespace tptrain::kernels
