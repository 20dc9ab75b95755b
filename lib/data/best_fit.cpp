#include "data/best_fit.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace tptrain::data {

namespace {

constexpr int64_t kNone = -1;

std::vector<Piece> cut(std::span<const int64_t> document_ends, int64_t seq_length) {
  std::vector<Piece> pieces;
  int64_t begin = 0;
  for (const int64_t end : document_ends) {
    while (end - begin > seq_length) {
      pieces.push_back(
          {.begin = begin, .tokens = static_cast<int32_t>(seq_length), .goes_on = true});
      begin += seq_length;
    }
    if (end - begin > 1)
      pieces.push_back({.begin = begin, .tokens = static_cast<int32_t>(end - begin)});
    begin = end;
  }
  return pieces;
}

/// Indices by falling length; equal lengths in their order.
std::vector<int64_t> longest_first(const std::vector<Piece>& pieces, int64_t seq_length) {
  std::vector<int64_t> next(static_cast<size_t>(seq_length) + 2);  // place of each length's next
  for (const Piece& piece : pieces) ++next[static_cast<size_t>(seq_length - piece.tokens) + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<int64_t> order(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto place = next[static_cast<size_t>(seq_length - pieces[i].tokens)]++;
    order[static_cast<size_t>(place)] = static_cast<int64_t>(i);
  }
  return order;
}

/// The bin of each piece, by the order in which bins were begun.
std::vector<int64_t> bins_of(const std::vector<Piece>& pieces, int64_t seq_length) {
  std::vector<int64_t> bins(pieces.size());
  std::vector<std::vector<int64_t>> with_room(static_cast<size_t>(seq_length) + 1);
  std::set<int64_t> rooms;  // of which there are bins
  int64_t begun = 0;
  for (const int64_t index : longest_first(pieces, seq_length)) {
    const int64_t tokens = pieces[static_cast<size_t>(index)].tokens;
    int64_t bin = begun;
    int64_t room = seq_length;
    const auto best = rooms.lower_bound(tokens);
    if (best == rooms.end()) {
      ++begun;
    } else {
      room = *best;
      std::vector<int64_t>& fitting = with_room[static_cast<size_t>(room)];
      bin = fitting.back();
      fitting.pop_back();
      if (fitting.empty()) rooms.erase(best);
    }
    bins[static_cast<size_t>(index)] = bin;
    if (room == tokens) continue;
    with_room[static_cast<size_t>(room - tokens)].push_back(bin);
    rooms.insert(room - tokens);
  }
  return bins;
}

}  // namespace

BestFitRows::BestFitRows(std::span<const int64_t> document_ends, int64_t seq_length) {
  const std::vector<Piece> pieces = cut(document_ends, seq_length);
  std::vector<int64_t> rows = bins_of(pieces, seq_length);
  std::vector<int64_t> row_of_bin(pieces.size(), kNone);
  for (int64_t& row : rows) {
    int64_t& known = row_of_bin[static_cast<size_t>(row)];
    if (known == kNone) {
      known = static_cast<int64_t>(row_begins_.size()) - 1;
      row_begins_.push_back(0);
    }
    row = known;
    ++row_begins_[static_cast<size_t>(row) + 1];
  }
  std::partial_sum(row_begins_.begin(), row_begins_.end(), row_begins_.begin());
  std::vector<int64_t> next = row_begins_;
  pieces_.resize(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces_[static_cast<size_t>(next[static_cast<size_t>(rows[i])]++)] = pieces[i];
    tokens_ += pieces[i].tokens;
  }
}

std::span<const Piece> BestFitRows::pieces(int64_t row) const {
  const auto begin = static_cast<size_t>(row_begins_[static_cast<size_t>(row)]);
  const auto end = static_cast<size_t>(row_begins_[static_cast<size_t>(row) + 1]);
  return std::span(pieces_).subspan(begin, end - begin);
}

}  // namespace tptrain::data
