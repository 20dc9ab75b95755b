#include "data/best_fit.h"

#include <algorithm>
#include <random>

#include "support/catch.h"

namespace tptrain::data {
namespace {

struct Seen {
  int64_t begin, tokens;
  bool goes_on;
  bool operator==(const Seen&) const = default;
};

std::vector<std::vector<Seen>> rows_of(const BestFitRows& rows) {
  std::vector<std::vector<Seen>> all;
  for (int64_t row = 0; row < rows.rows(); ++row) {
    std::vector<Seen>& pieces = all.emplace_back();
    for (const Piece& piece : rows.pieces(row))
      pieces.push_back({piece.begin, piece.tokens, piece.goes_on});
  }
  return all;
}

std::vector<int64_t> ends_of(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> ends;
  int64_t end = 0;
  for (const int64_t length : lengths) ends.push_back(end += length);
  return ends;
}

}  // namespace

TEST_CASE("the longest documents come first, each where it leaves the least room") {
  // Of 10: 7 and 6 begin rows; 4 fits beside 6 exactly, 3 beside 7, and 2 is alone.
  const BestFitRows rows(ends_of({2, 6, 3, 7, 4}), 10);
  CHECK(rows_of(rows) == std::vector<std::vector<Seen>>{{{0, 2, false}},
                                                        {{2, 6, false}, {18, 4, false}},
                                                        {{8, 3, false}, {11, 7, false}}});
  CHECK(rows.tokens() == 22);
}

TEST_CASE("only a document that is longer than a row is cut, and a single token is nothing") {
  // 9 is 4 + 4 + 1, whose last token is a target only; 6 is 4 + 2; documents of 1 predict nothing.
  const BestFitRows rows(ends_of({9, 1, 6, 2, 4, 1}), 4);
  CHECK(rows_of(rows) == std::vector<std::vector<Seen>>{{{0, 4, true}},
                                                        {{4, 4, true}},
                                                        {{10, 4, true}},
                                                        {{14, 2, false}, {16, 2, false}},
                                                        {{18, 4, false}}});
  CHECK(BestFitRows(ends_of({1, 1}), 4).rows() == 0);
  CHECK(BestFitRows({}, 4).rows() == 0);
}

TEST_CASE("every token that predicts another is in one row, and rows are nearly full") {
  std::mt19937 random(7);
  for (const int64_t seq_length : {1, 2, 3, 64, 1000}) {
    std::vector<int64_t> lengths;
    for (int i = 0; i < 3000; ++i)
      lengths.push_back(1 + static_cast<int64_t>(random() % (3 * seq_length / 2 + 1)));
    const std::vector<int64_t> ends = ends_of(lengths);
    const BestFitRows rows(ends, seq_length);
    std::vector<int> predicted(static_cast<size_t>(ends.back()));
    int64_t tokens = 0;
    int64_t last_first = -1;
    for (int64_t row = 0; row < rows.rows(); ++row) {
      int64_t in_row = 0;
      int64_t last = -1;
      CHECK(rows.pieces(row).front().begin > last_first);
      last_first = rows.pieces(row).front().begin;
      for (const Piece& piece : rows.pieces(row)) {
        CHECK(piece.begin > last);
        last = piece.begin;
        in_row += piece.tokens;
        const int64_t targets = piece.goes_on ? piece.tokens : piece.tokens - 1;
        for (int64_t i = 1; i <= targets; ++i) ++predicted[static_cast<size_t>(piece.begin + i)];
        // A document that fits is whole.
        const auto end = std::upper_bound(ends.begin(), ends.end(), piece.begin);
        const int64_t begin = end == ends.begin() ? 0 : *(end - 1);
        if (*end - begin <= seq_length) {
          CHECK((piece.begin == begin && piece.tokens == *end - begin && !piece.goes_on));
        } else {
          CHECK((piece.begin - begin) % seq_length == 0);
        }
      }
      CHECK(in_row <= seq_length);
      tokens += in_row;
    }
    CHECK(tokens == rows.tokens());
    for (size_t document = 0; document < ends.size(); ++document) {
      const int64_t end = ends[document];
      const int64_t begin = end - lengths[document];
      CHECK(predicted[static_cast<size_t>(begin)] == 0);
      for (int64_t i = begin + 1; i < end; ++i) REQUIRE(predicted[static_cast<size_t>(i)] == 1);
    }
    if (seq_length >= 64) CHECK(tokens >= rows.rows() * seq_length * 99 / 100);
  }
}

}  // namespace tptrain::data
