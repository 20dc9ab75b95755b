#include "adapters/merged_source.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "kernels/cpu/parallel.h"
#include "model/adapter.h"

namespace tptrain::adapters {

namespace {

// Columns whose sums stay in the first cache while the rank's rows of A pass by.
constexpr int64_t kColumns = 512;

// The elements [begin, end) of rows of width `width` that lie in row `row`.
struct Part {
  int64_t first;  // column
  int64_t count;
};
Part part_of(int64_t row, int64_t width, int64_t begin, int64_t end) {
  const int64_t first = std::max(begin, row * width);
  return {first - row * width, std::min(end, (row + 1) * width) - first};
}

// out[c] += scale * sum over k, rising, of b[k] * a[k, c].
void add_row(const float* b, const float* a, int64_t rank, int64_t width, Part part, float scale,
             float* out) {
  float sums[kColumns];
  for (int64_t at = 0; at < part.count; at += kColumns) {
    const int64_t columns = std::min(kColumns, part.count - at);
    std::fill_n(sums, columns, 0.0F);
    for (int64_t k = 0; k < rank; ++k) {
      const float factor = b[k];
      const float* row = a + k * width + part.first + at;
      for (int64_t c = 0; c < columns; ++c) sums[c] += factor * row[c];
    }
    for (int64_t c = 0; c < columns; ++c) out[at + c] += scale * sums[c];
  }
}

at::Tensor read_all(const sharding::TensorSource& source, const sharding::ShardSpec& spec,
                    int64_t begin, int64_t end) {
  at::Tensor values = at::empty({end - begin}, at::kFloat);
  source.read_slice(spec, begin, end, values);
  return values;
}

}  // namespace

MergedSource::MergedSource(std::unique_ptr<sharding::TensorSource> base,
                           std::unique_ptr<sharding::TensorSource> adapter,
                           const model::DecoderConfig& decoder, const config::AdapterConfig& config)
    : base_(std::move(base)),
      adapter_(std::move(adapter)),
      replaced_(model::tensors_saved_whole(decoder, config)),
      rank_(config.rank),
      scale_(static_cast<float>(model::adapter_scale(config))) {
  for (const model::AdapterSite& site : model::adapter_sites(decoder, config)) {
    for (const model::AdapterSite::Linear& linear : site.linears) {
      adapted_.emplace(linear.name + ".weight", Factors{.a = site.name + ".lora_A.weight",
                                                        .b = linear.name + ".lora_B.weight"});
    }
  }
}

std::vector<sharding::TensorInfo> MergedSource::tensors() const { return base_->tensors(); }

void MergedSource::read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                              at::Tensor& out) const {
  if (replaced_.contains(spec.name)) return adapter_->read_slice(spec, begin, end, out);
  base_->read_slice(spec, begin, end, out);
  const auto factors = adapted_.find(spec.name);
  if (factors != adapted_.end() && end > begin) {
    add_product(factors->second, spec, begin, end, out);
  }
}

void MergedSource::add_product(const Factors& factors, const sharding::ShardSpec& spec,
                               int64_t begin, int64_t end, at::Tensor& out) const {
  const int64_t width = spec.local_shape().at(1);
  const int64_t first_row = begin / width;
  const int64_t end_row = (end + width - 1) / width;
  sharding::ShardSpec a_spec = {.name = factors.a, .global_shape = {rank_, spec.global_shape[1]}};
  sharding::ShardSpec b_spec = {.name = factors.b, .global_shape = {spec.global_shape[0], rank_}};
  sharding::ShardSpec& cut = spec.dim == 1 ? a_spec : b_spec;
  if (!spec.whole()) {
    cut.dim = spec.dim;
    cut.begin = spec.begin;
    cut.end = spec.end;
  }
  const at::Tensor a = read_all(*adapter_, a_spec, 0, rank_ * width);
  const at::Tensor b = read_all(*adapter_, b_spec, first_row * rank_, end_row * rank_);
  const float* a_values = a.const_data_ptr<float>();
  const float* b_values = b.const_data_ptr<float>();
  float* values = out.data_ptr<float>();
  const auto add_rows = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t row = first_row + i;
      const Part part = part_of(row, width, begin, end);
      add_row(b_values + i * rank_, a_values, rank_, width, part, scale_,
              values + (row * width + part.first - begin));
    }
  };
  kernels::cpu::parallel_rows(end_row - first_row, kernels::cpu::grain_of(rank_ * width), add_rows);
}

}  // namespace tptrain::adapters
