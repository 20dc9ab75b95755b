#include "checkpoint/tensor_index.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/text.h"

namespace tptrain::checkpoint {

namespace {

// Calls the sweep's complaint where sorted intervals leave a hole or overlap; `unit` names what is
// counted.
template <typename Intervals>
void check_tiling(const Intervals& intervals, int64_t extent, const std::string& place,
                  const char* unit) {
  int64_t expected = 0;
  for (const auto& interval : intervals) {
    if (interval.begin < expected) {
      throw Refused(cat(place, ": ", unit, " [", interval.begin, ", ",
                        std::min(expected, interval.end), ") are saved twice"));
    }
    if (interval.begin > expected) break;
    expected = interval.end;
  }
  if (expected < extent)
    throw Refused(cat(place, ": ", unit, " from ", expected, " on are saved by no piece"));
}

template <typename Intervals>
const auto& holding(const Intervals& intervals, int64_t position) {
  const auto after =
      std::upper_bound(intervals.begin(), intervals.end(), position,
                       [](int64_t p, const auto& interval) { return p < interval.begin; });
  return *(after - 1);
}

}  // namespace

TensorIndex::TensorIndex(const std::vector<ManifestPiece>& pieces) {
  std::vector<int64_t> order(pieces.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto rank = [&](int64_t i) {
    const ManifestPiece& p = pieces[static_cast<size_t>(i)];
    return std::tie(p.spec.name, p.kind, p.spec.begin, p.spec.end, p.begin, p.end);
  };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rank(a) < rank(b); });
  for (const int64_t i : order) add(pieces[static_cast<size_t>(i)], i);

  for (const sharding::TensorInfo& tensor : tensors_) {
    const Entry& entry = entries_.at(tensor.name);
    if (!entry.cuts.contains(sharding::kMaster)) {
      throw Refused(cat("tensor ", one_line(tensor.name), " has ", entry.cuts.begin()->first,
                        " but no ", sharding::kMaster));
    }
    check(tensor.name, entry);
  }
}

// Pieces come sorted by name, kind, slice, range: each belongs to the last slice or begins a new
// one.
void TensorIndex::add(const ManifestPiece& piece, int64_t number) {
  const sharding::ShardSpec& spec = piece.spec;
  const auto [found, is_new] = entries_.try_emplace(spec.name);
  Entry& entry = found->second;
  if (is_new) {
    entry = {.shape = spec.global_shape, .cuts = {}};
    tensors_.push_back({.name = spec.name, .shape = spec.global_shape});
  }
  if (entry.shape != spec.global_shape) {
    throw Refused(cat("tensor ", one_line(spec.name), " has shape [", join(entry.shape),
                      "] in one piece, [", join(spec.global_shape), "] in another"));
  }
  // A whole tensor is the one slice of a cut along its first dimension; a scalar has an extent of
  // one.
  const int64_t dim = std::max<int64_t>(spec.dim, 0);
  const int64_t extent =
      spec.global_shape.empty() ? 1 : spec.global_shape[static_cast<size_t>(dim)];
  const int64_t begin = spec.whole() ? 0 : spec.begin;
  const int64_t end = spec.whole() ? extent : spec.end;

  Cut& cut = entry.cuts[piece.kind];
  if (cut.slices.empty()) {
    cut.dim = dim;
    cut.extent = extent;
    for (size_t d = static_cast<size_t>(dim) + 1; d < spec.global_shape.size(); ++d)
      cut.inner *= spec.global_shape[d];
  }
  if (cut.dim != dim) {
    throw Refused(cat("tensor ", one_line(spec.name), " is cut along dimension ", cut.dim,
                      " in one piece, ", dim, " in another"));
  }
  if (cut.slices.empty() || cut.slices.back().begin != begin || cut.slices.back().end != end) {
    cut.slices.push_back({.begin = begin, .end = end, .ranges = {}});
  }
  cut.slices.back().ranges.push_back({.begin = piece.begin, .end = piece.end, .piece = number});
}

void TensorIndex::check(const std::string& name, const Entry& entry) const {
  const int64_t numel =
      std::accumulate(entry.shape.begin(), entry.shape.end(), int64_t{1}, std::multiplies<>());
  for (const auto& [kind, cut] : entry.cuts) {
    const std::string place = cat("tensor ", one_line(name), ", ", kind);
    check_tiling(cut.slices, cut.extent, place, cut.dim == 0 ? "rows" : "columns");
    for (const Slice& slice : cut.slices) {
      check_tiling(slice.ranges, numel / cut.extent * (slice.end - slice.begin),
                   cat(place, ", slice [", slice.begin, ", ", slice.end, ")"), "elements");
    }
  }
}

const std::vector<int64_t>* TensorIndex::shape_of(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.shape;
}

bool TensorIndex::has(std::string_view kind, const std::string& name) const {
  const auto found = entries_.find(name);
  return found != entries_.end() && found->second.cuts.contains(kind);
}

std::vector<std::string> TensorIndex::kinds_of(const std::string& name) const {
  std::vector<std::string> kinds;
  for (const auto& [kind, cut] : entries_.at(name).cuts) kinds.push_back(kind);
  return kinds;
}

void TensorIndex::find(std::string_view kind, const sharding::ShardSpec& spec, int64_t begin,
                       int64_t end, const std::function<void(const Stretch&)>& visit) const {
  const Cut& cut = entries_.at(spec.name).cuts.find(kind)->second;
  for (const sharding::Run& run : sharding::runs_of(spec, begin, end)) {
    int64_t done = 0;
    while (done < run.count) {
      // Position of the element in the global tensor: [outer, step along dim, inner].
      const int64_t position = run.global_begin + done;
      const int64_t outer = position / (cut.extent * cut.inner);
      const int64_t step = position / cut.inner % cut.extent;
      const int64_t inner = position % cut.inner;
      const Slice& slice = holding(cut.slices, step);
      const int64_t in_slice =
          (outer * (slice.end - slice.begin) + step - slice.begin) * cut.inner + inner;
      const int64_t contiguous =
          (slice.end - step) * cut.inner - inner;  // until the slice's row ends
      const Range& range = holding(slice.ranges, in_slice);
      const int64_t count = std::min({run.count - done, contiguous, range.end - in_slice});
      visit({.piece = range.piece,
             .source = in_slice - range.begin,
             .target = run.local_begin - begin + done,
             .count = count});
      done += count;
    }
  }
}

}  // namespace tptrain::checkpoint
