// The two halves of the global norm: local sums, and their sum over an axis.
#include "zero/gradient_norm.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/cpu/parallel.h"
#include "kernels/cuda/stream.h"
#include "zero/gradient_row.h"

namespace tptrain::zero {
namespace {

// Each chunk is summed by one thread, and the chunks' sums are added in order: the thread count
// changes nothing.
constexpr int64_t kChunk = 32768;

double chunk_sum(const float* values, int64_t count) {
  // Eight independent sums: one alone would wait for the addition's latency at every element.
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      const double value = values[i + lane];
      sums[lane] += value * value;
    }
  }
  for (int lane = 0; i < count; ++i, ++lane) {
    const double value = values[i];
    sums[lane] += value * value;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

double sum_on_cpu(const at::Tensor& view) {
  const at::Tensor wide = view.to(at::kFloat);  // itself, where it is
  const float* values = wide.const_data_ptr<float>();
  const int64_t numel = wide.numel();
  std::vector<double> sums((numel + kChunk - 1) / kChunk);
  kernels::cpu::parallel_rows(
      static_cast<int64_t>(sums.size()), 1, [&](int64_t first, int64_t last) {
        for (int64_t chunk = first; chunk < last; ++chunk) {
          const int64_t begin = chunk * kChunk;
          sums[chunk] = chunk_sum(values + begin, std::min(kChunk, numel - begin));
        }
      });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

SumsOfSquares::SumsOfSquares(Groups groups, at::Device device, Groups flags, Groups written_rows,
                             std::vector<std::vector<Found>> found)
    : groups_(std::move(groups)),
      flags_(std::move(flags)),
      found_(std::move(found)),
      device_(device) {
  found_.resize(groups_.size());
  if (flags_.empty()) {
    for (const auto& group : groups_) flags_.emplace_back(group.size());
  }
  if (device.is_cpu()) return;
  std::vector<cuda::Gradient> tensors;
  std::vector<float*> flag_pointers;
  std::vector<kernels::cuda::Chunk> chunks;
  std::vector<int64_t> begins = {0};
  for (size_t i = 0; i < groups_.size(); ++i) {
    for (size_t j = 0; j < groups_[i].size(); ++j) {
      const at::Tensor& tensor = groups_[i][j];
      kernels::cuda::append_chunks(chunks, static_cast<int64_t>(tensors.size()), tensor.numel(),
                                   cuda::kChunkElements);
      tensors.push_back(row_of(tensor));
      if (!written_rows.empty() && written_rows[i][j].defined())
        tensors.back().rows = {.written = written_rows[i][j].const_data_ptr<uint8_t>(),
                               .row_elements = tensor.numel() / written_rows[i][j].numel()};
    }
    begins.push_back(static_cast<int64_t>(chunks.size()));
  }
  for (const std::vector<at::Tensor>& group : flags_) {
    for (const at::Tensor& flag : group)
      flag_pointers.push_back(flag.defined() ? flag.mutable_data_ptr<float>() : nullptr);
  }
  tensors_ = {tensors, device};
  flag_pointers_ = {flag_pointers, device};
  chunks_ = {chunks, device};
  group_begins_ = {begins, device};
  partial_ = {std::vector<double>(chunks.size()), device};
  make_found_tables();
}

void SumsOfSquares::make_found_tables() {
  std::vector<cuda::FoundSquares> rows;
  std::vector<int64_t> begins = {0};
  for (const std::vector<Found>& group : found_) {
    for (const Found& found : group) {
      rows.push_back(
          {.of_pieces = found.of_pieces.const_data_ptr<double>(),
           .count = found.of_pieces.numel(),
           .mark = found.flag.defined() ? found.flag.mutable_data_ptr<float>() : nullptr});
    }
    begins.push_back(static_cast<int64_t>(rows.size()));
  }
  found_rows_ = {rows, device_};
  found_begins_ = {begins, device_};
  found_sums_ = {std::vector<double>(rows.size()), device_};
}

at::Tensor SumsOfSquares::operator()() const {
  at::Tensor sums = at::empty({static_cast<int64_t>(groups_.size())},
                              at::TensorOptions().dtype(at::kDouble).device(device_));
  if (!device_.is_cpu()) {
    sum_on_cuda(sums);
    return sums;
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    double total = 0;
    for (size_t j = 0; j < groups_[i].size(); ++j) {
      const double sum = sum_on_cpu(groups_[i][j]);
      total += sum;
      const at::Tensor& flag = flags_[i][j];
      if (flag.defined() && !std::isfinite(sum))
        *flag.mutable_data_ptr<float>() = std::numeric_limits<float>::infinity();
    }
    sums.mutable_data_ptr<double>()[i] = total;
  }
  return sums;
}

void SumsOfSquares::sum_on_cuda(at::Tensor& sums) const {
  cuda::sums_of_squares({.tensors = tensors_.rows(),
                         .marks = flag_pointers_.rows(),
                         .chunks = chunks_.rows(),
                         .chunk_count = chunks_.size(),
                         .partial = partial_.rows(),
                         .group_begins = group_begins_.rows(),
                         .found = found_rows_.rows(),
                         .found_count = found_rows_.size(),
                         .found_sums = found_sums_.rows(),
                         .found_begins = found_begins_.rows(),
                         .groups = sums.numel(),
                         .sums = sums.mutable_data_ptr<double>()},
                        kernels::cuda::stream_of(sums));
  kernels::cuda::check_launch("sums_of_squares");
}

at::Tensor gather_rows(const at::Tensor& values, comm::Communicator& axis) {
  const int64_t count = values.numel();
  if (axis.size() == 1) return values.view({1, count});
  const at::Tensor bits = values.contiguous().view(at::kLong);
  at::Tensor gathered = at::empty({axis.size() * count}, bits.options());
  axis.all_gather(gathered, bits);
  return gathered.view(at::kDouble).view({axis.size(), count});
}

at::Tensor sum_in_rank_order(const at::Tensor& rows) {
  at::Tensor total = rows[0].clone();
  for (int64_t rank = 1; rank < rows.size(0); ++rank) total += rows[rank];
  return total;
}

}  // namespace tptrain::zero
