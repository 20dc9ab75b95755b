#include "checkpoint/stored_stream.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "formats/float_convert.h"

namespace tptrain::checkpoint {

namespace {

using sharding::StoredTensor;
using Write = std::function<void(std::span<const std::byte>)>;

// fp32 -> stored bytes -> `write`.
class Converter {
 public:
  Converter(formats::Dtype dtype, const Write& write) : dtype_(dtype), write_(write) {}
  void operator()(const float* values, int64_t count) {
    bytes_.resize(static_cast<size_t>(count * formats::dtype_bits(dtype_) / 8));
    formats::from_float32(dtype_, values, bytes_.data(), count);
    write_(bytes_);
  }

 private:
  formats::Dtype dtype_;
  const Write& write_;
  std::vector<std::byte> bytes_;
};

void stream_rows(const sharding::TensorSource& source, const StoredTensor& part,
                 int64_t elements_at_once, Converter& convert) {
  const sharding::ShardSpec spec = sharding::whole_tensor(part.name, part.shape);
  const int64_t total = spec.global_numel();
  at::Tensor values = at::empty({std::min(total, elements_at_once)}, at::kFloat);
  for (int64_t begin = 0; begin < total; begin += elements_at_once) {
    const int64_t end = std::min(total, begin + elements_at_once);
    at::Tensor chunk = values.narrow(0, 0, end - begin);
    source.read_slice(spec, begin, end, chunk);
    convert(chunk.data_ptr<float>(), end - begin);
  }
}

// out[c, first + r] = in[r, c] for in [rows, columns], rows of `out` being `stride` apart; in
// tiles, so that both sides are met in cache lines.
void transpose_into(const float* in, int64_t rows, int64_t columns, float* out, int64_t stride) {
  constexpr int64_t kTile = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = std::min(rows, r0 + kTile);
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      const int64_t c1 = std::min(columns, c0 + kTile);
      for (int64_t c = c0; c < c1; ++c) {
        for (int64_t r = r0; r < r1; ++r) out[c * stride + r] = in[r * columns + c];
      }
    }
  }
}

// Stored rows are columns of the canonical parts: as many at once as fit.
void stream_transposed(const sharding::TensorSource& source, std::span<const StoredTensor> parts,
                       int64_t elements_at_once, Converter& convert) {
  const int64_t stored_rows = parts[0].stored_shape[0];
  const int64_t width = parts[0].stored_shape[1];
  const int64_t rows_at_once = std::clamp<int64_t>(elements_at_once / std::max<int64_t>(width, 1),
                                                   1, std::max<int64_t>(stored_rows, 1));
  std::vector<float> stored(static_cast<size_t>(rows_at_once * width));
  for (int64_t begin = 0; begin < stored_rows; begin += rows_at_once) {
    const int64_t end = std::min(stored_rows, begin + rows_at_once);
    for (const StoredTensor& part : parts) {
      const auto spec = sharding::slice_of(part.name, part.shape, 1, begin, end);
      at::Tensor values = at::empty({spec.local_numel()}, at::kFloat);
      source.read_slice(spec, 0, spec.local_numel(), values);
      transpose_into(values.data_ptr<float>(), part.shape[0], end - begin,
                     stored.data() + part.first, width);
    }
    convert(stored.data(), (end - begin) * width);
  }
}

}  // namespace

void stream_stored_tensor(const sharding::TensorSource& source, std::span<const StoredTensor> parts,
                          formats::Dtype dtype, const Write& write, int64_t elements_at_once) {
  Converter convert(dtype, write);
  if (parts[0].transposed) return stream_transposed(source, parts, elements_at_once, convert);
  for (const StoredTensor& part : parts) stream_rows(source, part, elements_at_once, convert);
}

}  // namespace tptrain::checkpoint
