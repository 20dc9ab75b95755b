#include "tensor_parallel/nf4_base.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "base/interruption.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain::tensor_parallel {

namespace {

using kernels::kNf4Block;
using kernels::Nf4Blocks;
using parameters::NamedSlice;
using parameters::Parameter;
using sharding::ShardSpec;

// A multiple of a block: what comes in pieces is the same as what comes at once.
constexpr int64_t kChunk = sharding::kStateChunkElements;
static_assert(kChunk % kNf4Block == 0);

// One tp rank has slices that are all there is.
bool is_all(const ShardSpec& spec) {
  return spec.whole() || (spec.begin == 0 && spec.end == spec.global_shape[spec.dim]);
}

bool cut_between_blocks(const ShardSpec& spec) {
  if (is_all(spec)) return true;
  const int64_t columns = spec.global_shape[1];
  if (spec.dim == 0) {
    const bool last = spec.end == spec.global_shape[0];
    return spec.begin * columns % kNf4Block == 0 && (last || spec.end * columns % kNf4Block == 0);
  }
  return columns % kNf4Block == 0 && spec.begin % kNf4Block == 0 && spec.end % kNf4Block == 0;
}

Nf4Blocks blocks_of(const ShardSpec& spec) {
  const int64_t columns = spec.global_shape[1];
  if (spec.dim == 1 && !is_all(spec)) {
    return {.first = spec.begin / kNf4Block,
            .run = std::max<int64_t>((spec.end - spec.begin) / kNf4Block, 1),
            .stride = columns / kNf4Block};
  }
  const int64_t count = std::max<int64_t>(kernels::nf4_blocks(spec.local_numel()), 1);
  return {
      .first = is_all(spec) ? 0 : spec.begin * columns / kNf4Block, .run = count, .stride = count};
}

template <typename T>
at::Tensor on_device(const std::vector<T>& values, at::ScalarType type, at::Device device) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, type);
  std::memcpy(tensor.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
  return tensor.to(device);
}

/// Reads all of the slice, a chunk at a time.
void read_chunks(const sharding::TensorSource& source, const ShardSpec& spec,
                 const std::function<void(int64_t begin, const at::Tensor& values)>& take) {
  const int64_t numel = spec.local_numel();
  for (int64_t begin = 0; begin < numel; begin += kChunk) {
    interruption_point();
    at::Tensor values = at::empty({std::min(kChunk, numel - begin)}, at::kFloat);
    source.read_slice(spec, begin, begin + values.numel(), values);
    take(begin, values);
  }
}

}  // namespace

// One slice of one weight.
struct Nf4Base::Slice {
  const Parameter* weight = nullptr;
  const NamedSlice* named = nullptr;
  kernels::Nf4Matrix matrix;
};

std::vector<Problem> check_nf4_cuts(const std::vector<Parameter*>& weights, int64_t tp_size) {
  std::vector<Problem> problems;
  for (const Parameter* weight : weights) {
    for (const NamedSlice& slice : weight->slices) {
      const ShardSpec& spec = slice.spec;
      if (cut_between_blocks(spec)) continue;
      problems.push_back(
          problem(cat("adapter.base_dtype is nf4, and tp_size ", tp_size, " cuts ", spec.name, " [",
                      join(spec.global_shape), "] at ", spec.begin, " of dimension ", spec.dim,
                      ", within a block of ", kNf4Block, " elements"))
              .must("be cut between blocks, so that numbers do not depend on the layout")
              .remedy("Set parallel.tp_size to another size, or adapter.base_dtype to bf16."));
      return problems;  // the others are cut alike
    }
  }
  return problems;
}

Nf4Base::Nf4Base(std::vector<Parameter*> weights, const Options& options)
    : weights_(std::move(weights)), options_(options) {
  const auto& map = kernels::dynamic_map();
  map_ = on_device(std::vector<float>(map.begin(), map.end()), at::kFloat, options_.device);
  const auto bytes = at::TensorOptions().device(options_.device).dtype(at::kByte);
  int64_t largest = 0;
  for (Parameter* weight : weights_) {
    for (const NamedSlice& named : weight->slices) {
      const int64_t elements = named.spec.local_numel();
      const int64_t groups =
          (kernels::nf4_blocks(named.spec.global_numel()) + kernels::kNf4Group - 1) /
          kernels::kNf4Group;
      auto slice = std::make_unique<Slice>();
      slice->weight = weight;
      slice->named = &named;
      slice->matrix = {.codes = at::zeros({(elements + 1) / 2}, bytes),
                       .scales = at::zeros({kernels::nf4_blocks(elements)}, bytes),
                       .groups = at::zeros({groups}, bytes.dtype(at::kFloat)),
                       .map = map_,
                       .blocks = blocks_of(named.spec),
                       .elements = elements};
      slices_.push_back(std::move(slice));
    }
    largest = std::max(largest, weight->numel());
    weight->packed = this;
  }
  room_ = at::empty({largest}, bytes.dtype(options_.dtype));
}

Nf4Base::~Nf4Base() {
  for (Parameter* weight : weights_) weight->packed = nullptr;
}

void Nf4Base::load(const sharding::TensorSource& source) {
  int64_t elements = 0;
  for (const auto& slice : slices_) {
    elements += slice->named->spec.global_numel() + slice->matrix.elements;
  }
  const Work work("quantising the base", WorkUnit::bytes,
                  elements * static_cast<int64_t>(sizeof(float)));
  for (const auto& slice : slices_) load_slice(*slice, source);
}

void Nf4Base::load_slice(Slice& slice, const sharding::TensorSource& source) {
  const ShardSpec& spec = slice.named->spec;
  kernels::Nf4Matrix& matrix = slice.matrix;
  kernels::Nf4Maxima maxima(spec.global_numel());
  read_chunks(source, sharding::whole_tensor(spec.name, spec.global_shape),
              [&](int64_t, const at::Tensor& values) {
                maxima.add(values.const_data_ptr<float>(), values.numel());
              });
  const kernels::Nf4Scales scales = kernels::nf4_scales(maxima.of_blocks());
  std::vector<float> own_maxima;
  std::vector<uint8_t> own_scales;
  for (int64_t block = 0; block < kernels::nf4_blocks(matrix.elements); ++block) {
    const auto whole = static_cast<size_t>(matrix.blocks.whole(block));
    own_maxima.push_back(maxima.of_blocks().at(whole));
    own_scales.push_back(scales.of_blocks.at(whole));
  }
  std::vector<uint8_t> codes(static_cast<size_t>((matrix.elements + 1) / 2));
  read_chunks(source, spec, [&](int64_t begin, const at::Tensor& values) {
    kernels::nf4_codes(values.const_data_ptr<float>(), values.numel(),
                       own_maxima.data() + begin / kNf4Block, codes.data() + begin / 2);
  });
  matrix.offset = scales.offset;
  matrix.codes.copy_(on_device(codes, at::kByte, at::kCPU));
  matrix.scales.copy_(on_device(own_scales, at::kByte, at::kCPU));
  matrix.groups.copy_(on_device(scales.of_groups, at::kFloat, at::kCPU));
}

at::Tensor Nf4Base::values(const Parameter& weight) const {
  const at::Tensor all = room_.narrow(0, 0, weight.numel());
  for (const auto& slice : slices_) {
    if (slice->weight != &weight) continue;
    at::Tensor part = all.narrow(0, slice->named->offset, slice->matrix.elements);
    kernels::nf4_values_out(part, slice->matrix);
  }
  return all.view(weight.shape);
}

int64_t Nf4Base::bytes(const std::vector<Parameter*>& weights, at::ScalarType dtype) {
  if (weights.empty()) return 0;
  int64_t bytes = 256 * static_cast<int64_t>(sizeof(float));
  int64_t largest = 0;
  for (const Parameter* weight : weights) {
    for (const NamedSlice& slice : weight->slices) {
      bytes += kernels::nf4_bytes(slice.spec.local_numel(), slice.spec.global_numel());
    }
    largest = std::max(largest, weight->numel());
  }
  return bytes + largest * static_cast<int64_t>(c10::elementSize(dtype));
}

}  // namespace tptrain::tensor_parallel
