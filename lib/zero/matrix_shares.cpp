#include "zero/matrix_shares.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <utility>

namespace tptrain::zero {
namespace {

/// Groups by a number that rises.
template <typename Number>
std::vector<std::vector<size_t>> grouped(const std::vector<MatrixShare>& shares, Number number) {
  std::vector<std::vector<size_t>> groups;
  for (size_t i = 0; i < shares.size(); ++i) {
    const auto group = static_cast<size_t>(number(shares[i]));
    if (groups.size() <= group) groups.resize(group + 1);
    groups[group].push_back(i);
  }
  return groups;
}
std::vector<std::vector<size_t>> by_part(const std::vector<MatrixShare>& shares) {
  return grouped(shares, [](const MatrixShare& share) { return share.part; });
}
std::vector<std::vector<size_t>> by_batch(const std::vector<MatrixShare>& shares) {
  return grouped(shares, [](const MatrixShare& share) { return share.batch; });
}

int64_t global_numel(const MatrixShare& share) { return share.rows() * share.columns(); }

bool alike(const MatrixShare& a, const MatrixShare& b) {
  return std::minmax(a.rows(), a.columns()) == std::minmax(b.rows(), b.columns());
}

/// Matrices of one size in a bucket, as far as they are small: the same in every layout.
void choose_batches(std::vector<MatrixShare>& shares) {
  int next = 0;
  std::vector<bool> chosen(shares.size(), false);
  for (size_t i = 0; i < shares.size(); ++i) {
    if (chosen[i]) continue;
    int64_t elements = 0;
    for (size_t j = i; j < shares.size() && shares[j].bucket == shares[i].bucket; ++j) {
      if (chosen[j] || !alike(shares[i], shares[j])) continue;
      if (elements > 0 && elements + global_numel(shares[j]) > optim::kMostBatchElements) break;
      elements += global_numel(shares[j]);
      shares[j].batch = next;
      chosen[j] = true;
    }
    ++next;
  }
}

/// The longest first, each to the rank that has least (Graham, 1969).
void choose_owners(std::vector<MatrixShare>& shares, std::vector<std::vector<size_t>> batches,
                   const MatrixGrid& grid) {
  const auto cost = [&](const std::vector<size_t>& batch) {
    const MatrixShare& first = shares[batch[0]];
    return static_cast<double>(batch.size()) *
           optim::newton_schulz_flops(first.rows(), first.columns(), /*steps=*/1);
  };
  std::ranges::stable_sort(batches,
                           [&](const auto& a, const auto& b) { return cost(a) > cost(b); });
  std::vector<double> work(static_cast<size_t>(grid.ranks()), 0.0);
  for (const std::vector<size_t>& batch : batches) {
    const auto least = std::ranges::min_element(work);
    *least += cost(batch);
    const int rank = static_cast<int>(least - work.begin());
    for (const size_t i : batch) {
      shares[i].tp_owner = rank % grid.tp_size;
      shares[i].dp_owner = rank / grid.tp_size;
    }
  }
}

/// What all tp ranks together send of a matrix: copies come from each.
int64_t sent_by_tp_ranks(const MatrixShare& share, int tp_size) {
  return share.slice->copies.parts > 0 ? tp_size * share.numel() : global_numel(share);
}

}  // namespace

MatrixGrid matrix_grid(const StateLayout& layout, int tp_size, int dp_size) {
  return {.tp_size = tp_size, .dp_size = layout.holds_all ? 1 : dp_size};
}

int blocks_per_part(const std::vector<Bucket>& buckets, const MatrixGrid& grid) {
  const bool any = std::ranges::any_of(
      buckets, [](const Bucket& bucket) { return bucket.unit == optim::Unit::matrix; });
  return any ? grid.ranks() : 1;
}

std::vector<MatrixShare> share_matrices(const std::vector<Bucket>& buckets,
                                        const MatrixGrid& grid) {
  const int blocks = blocks_per_part(buckets, grid);
  std::vector<MatrixShare> shares;
  for (const Bucket& bucket : buckets) {
    if (bucket.unit != optim::Unit::matrix) continue;
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      for (const parameters::NamedSlice& slice : bucket.parameters[i]->slices) {
        shares.push_back({.bucket = &bucket,
                          .slice = &slice,
                          .bucket_begin = bucket.offsets[i] + slice.offset,
                          .part = bucket.block / blocks});
      }
    }
  }
  choose_batches(shares);
  std::vector<std::vector<std::vector<size_t>>> batches(by_part(shares).size());
  for (std::vector<size_t>& batch : by_batch(shares))
    batches[static_cast<size_t>(shares[batch[0]].part)].push_back(std::move(batch));
  for (auto& of_part : batches) choose_owners(shares, std::move(of_part), grid);
  return shares;
}

int64_t MatrixMemory::bytes(at::Device device) const {
  const auto width = static_cast<int64_t>(c10::elementSize(optim::NewtonSchulz::dtype_on(device)));
  if (work == 0) return 0;
  return (work + 1) * static_cast<int64_t>(sizeof(float)) +  // and a counter
         width * (sent + received + slices + over_tp + largest.total());
}

MatrixMemory matrix_memory(const std::vector<Bucket>& buckets, const MatrixGrid& grid) {
  const std::vector<MatrixShare> shares = share_matrices(buckets, grid);
  const int blocks = blocks_per_part(buckets, grid);
  MatrixMemory memory;
  const auto parts = by_part(shares);
  std::vector<int64_t> work(parts.size(), 0);
  for (const Bucket& bucket : buckets) {
    if (bucket.unit == optim::Unit::matrix)
      work[static_cast<size_t>(bucket.block / blocks)] += bucket.numel / grid.dp_size;
  }
  for (size_t part = 0; part < parts.size(); ++part) {
    std::vector<int64_t> of_dp_owner(static_cast<size_t>(grid.dp_size), 0);
    std::vector<int64_t> of_owner(static_cast<size_t>(grid.ranks()), 0);
    for (const size_t i : parts[part]) {
      const MatrixShare& share = shares[i];
      of_dp_owner[static_cast<size_t>(share.dp_owner)] += share.numel();
      of_owner[static_cast<size_t>(share.dp_owner * grid.tp_size + share.tp_owner)] +=
          sent_by_tp_ranks(share, grid.tp_size);
    }
    const int64_t slices = std::ranges::max(of_dp_owner);
    memory.work = std::max(memory.work, work[part]);
    if (grid.dp_size > 1) memory.received = std::max(memory.received, slices);
    if (grid.ranks() > 1) memory.slices = std::max(memory.slices, slices);
    if (grid.tp_size > 1) memory.over_tp = std::max(memory.over_tp, std::ranges::max(of_owner));
  }
  if (grid.dp_size > 1) memory.sent = memory.work;
  for (const std::vector<size_t>& batch : by_batch(shares)) {
    const MatrixShare& first = shares[batch[0]];
    memory.largest.add(static_cast<int64_t>(batch.size()), first.rows(), first.columns());
  }
  return memory;
}

MatrixTraffic matrix_traffic(const std::vector<Bucket>& buckets, const MatrixGrid& grid) {
  const std::vector<MatrixShare> shares = share_matrices(buckets, grid);
  std::vector<int64_t> over_tp(static_cast<size_t>(grid.dp_size), 0);
  MatrixTraffic traffic;
  for (const std::vector<size_t>& part : by_part(shares)) {
    if (part.empty()) continue;
    if (grid.dp_size > 1) traffic.dp_calls += 2;
    if (grid.tp_size > 1) traffic.tp_calls += 2;
  }
  for (const MatrixShare& share : shares) {
    if (grid.dp_size > 1) traffic.dp_elements += 2 * share.numel();
    if (grid.tp_size > 1)
      over_tp[static_cast<size_t>(share.dp_owner)] += 2 * sent_by_tp_ranks(share, grid.tp_size);
  }
  traffic.tp_elements = std::ranges::max(over_tp);
  return traffic;
}

}  // namespace tptrain::zero
