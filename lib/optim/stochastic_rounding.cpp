#include "optim/stochastic_rounding.h"

#include <ATen/ATen.h>

#include <vector>

#include "base/philox.h"
#include "base/text.h"
#include "kernels/philox_tensor.h"
#include "optim/adamw_loop.h"

namespace tptrain::optim {

namespace {

/// Bits of `count` consecutive global elements from each of `firsts` (int64 [rows], any device):
/// int32 [rows, count].
at::Tensor bits_of_rows(const at::Tensor& firsts, int64_t count, bool all_begin_a_group,
                        std::array<uint32_t, 2> key, const at::Tensor& updates) {
  // A row that does not begin with a group of eight reaches into one more.
  const int64_t groups = (count + 7) / 8 + (all_begin_a_group ? 0 : 1);
  const at::Tensor group = at::bitwise_right_shift(firsts, 3).unsqueeze(1) +
                           at::arange(groups, firsts.options());  // [rows, groups]
  const kernels::PhiloxTensors words = kernels::philox_tensor(
      {at::bitwise_and(group, 0xFFFFFFFF), at::bitwise_right_shift(group, 32),
       updates.to(at::kLong).reshape({1, 1}), at::zeros({1, 1}, firsts.options())},
      key);
  std::vector<at::Tensor> halves;
  for (const at::Tensor& word : words) {
    halves.push_back(at::bitwise_and(word, 0xFFFF).to(at::kInt));
    halves.push_back(at::bitwise_right_shift(word, 16).to(at::kInt));
  }
  const at::Tensor all =
      at::stack(halves, -1).view({firsts.size(0), groups * 8});  // from each row's first group on
  if (all_begin_a_group) return all.narrow(1, 0, count);
  const at::Tensor column =
      at::bitwise_and(firsts, 7).unsqueeze(1) + at::arange(count, firsts.options());
  return at::gather(all, 1, column);
}

}  // namespace

std::array<uint32_t, 2> rounding_key(uint64_t seed, std::string_view tensor) {
  return philox_key(seed, cat("rounding/", tensor));
}

void fill_rounding_bits(const RoundingSite& site, std::array<uint32_t, 2> key, uint32_t update,
                        int64_t begin, int64_t end, uint16_t* out) {
  for (const sharding::Run& run :
       sharding::runs_of(site.spec, site.begin + begin, site.begin + end)) {
    rounding_halves(key, update, run.global_begin, run.count, out);
    out += run.count;
  }
}

at::Tensor rounding_bits(const RoundingSite& site, std::array<uint32_t, 2> key,
                         const at::Tensor& updates, int64_t begin, int64_t end) {
  const at::TensorOptions options = at::TensorOptions(updates.device()).dtype(at::kLong);
  const int64_t first = site.begin + begin;
  const int64_t last = site.begin + end - 1;
  if (last < first) return at::empty({0}, options.dtype(at::kInt));
  // The slice consists of blocks of `local_block` elements, contiguous in the global tensor, one
  // every `global_block` elements there: what runs_of says, without a run for every row of a matrix
  // that is cut along its columns.
  const int64_t first_global = sharding::runs_of(site.spec, first, first + 1).front().global_begin;
  int64_t local_block = site.spec.local_numel();
  int64_t global_block = site.spec.global_numel();
  if (!site.spec.whole()) {
    int64_t inner = 1;
    for (size_t d = static_cast<size_t>(site.spec.dim) + 1; d < site.spec.global_shape.size(); ++d)
      inner *= site.spec.global_shape[d];
    local_block = (site.spec.end - site.spec.begin) * inner;
    global_block = site.spec.global_shape[static_cast<size_t>(site.spec.dim)] * inner;
  }
  const int64_t first_block = first / local_block;
  const int64_t blocks = last / local_block - first_block + 1;
  if (blocks == 1) {
    return bits_of_rows(at::full({1}, first_global, options), last - first + 1,
                        first_global % 8 == 0, key, updates)
        .reshape({-1});
  }
  const int64_t begin_of_block = first_global - (first - first_block * local_block);
  const at::Tensor firsts =
      at::arange(blocks, options).mul_(global_block).add_(begin_of_block);  // [blocks]
  return bits_of_rows(firsts, local_block, global_block % 8 == 0 && begin_of_block % 8 == 0, key,
                      updates)
      .reshape({-1})
      .narrow(0, first - first_block * local_block, last - first + 1);
}

at::Tensor round_stochastically(const at::Tensor& values, const at::Tensor& bits) {
  const at::Tensor sum = values.view(at::kInt) + bits;
  const at::Tensor rounded =
      at::bitwise_and(sum, static_cast<int64_t>(-65536)).view(at::kFloat);  // exact in bf16
  return at::where(at::isfinite(values), rounded, values).to(at::kBFloat16);
}

}  // namespace tptrain::optim
