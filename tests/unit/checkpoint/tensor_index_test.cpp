// Coverage: pieces that tile the tensors pass, each way of not tiling them is refused by name; and
// the check stays fast where a rank's slice is a column strip of many rows.
#include "checkpoint/tensor_index.h"

#include <ctime>
#include <string>

#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using checkpoint::ManifestPiece;
using checkpoint::Refused;
using checkpoint::TensorIndex;
using sharding::slice_of;
using sharding::whole_tensor;

ManifestPiece piece(sharding::ShardSpec spec, int64_t begin, int64_t end,
                    const sharding::StateKind& kind = sharding::kMaster) {
  if (spec.whole()) spec.begin = spec.end = 0;
  return {.kind = kind, .spec = std::move(spec), .begin = begin, .end = end, .file = 0, .key = "k"};
}

std::string refusal(const std::vector<ManifestPiece>& pieces) {
  return message_of<Refused>([&] { TensorIndex index(pieces); });
}

TEST_CASE("pieces that cover every element once pass") {
  CHECK(refusal({}) == "(nothing was thrown)");
  CHECK(refusal({piece(whole_tensor("a", {2, 3}), 4, 6), piece(whole_tensor("a", {2, 3}), 0, 4),
                 piece(slice_of("b", {2, 3}, 1, 0, 1), 0, 2),
                 piece(slice_of("b", {2, 3}, 1, 1, 3), 0, 4),
                 piece(whole_tensor("scalar", {}), 0, 1)}) == "(nothing was thrown)");
}

TEST_CASE("pieces that do not cover every element once are refused by name") {
  CHECK(refusal({piece(whole_tensor("a", {6}), 0, 4)}) ==
        "tensor a, master, slice [0, 6): elements from 4 on are saved by no piece");
  CHECK(refusal({piece(whole_tensor("a", {6}), 0, 2), piece(whole_tensor("a", {6}), 3, 6)}) ==
        "tensor a, master, slice [0, 6): elements from 2 on are saved by no piece");
  CHECK(refusal({piece(whole_tensor("a", {6}), 0, 4), piece(whole_tensor("a", {6}), 2, 6)}) ==
        "tensor a, master, slice [0, 6): elements [2, 4) are saved twice");
  CHECK(refusal({piece(slice_of("a", {4, 2}, 0, 0, 3), 0, 6)}) ==
        "tensor a, master: rows from 3 on are saved by no piece");
  CHECK(refusal({piece(slice_of("a", {4, 2}, 1, 1, 2), 0, 4)}) ==
        "tensor a, master: columns from 0 on are saved by no piece");
  CHECK(has(refusal({piece(slice_of("a", {4, 2}, 0, 0, 3), 0, 6),
                     piece(slice_of("a", {4, 2}, 0, 2, 4), 0, 4)}),
            "rows [2, 3) are saved twice"));
  CHECK(has(refusal({piece(whole_tensor("a", {4, 2}), 0, 8),
                     piece(slice_of("a", {4, 2}, 0, 0, 4), 0, 8)}),
            "are saved twice"));
  CHECK(has(refusal({piece(whole_tensor("a", {6}), 0, 6), piece(whole_tensor("a", {7}), 0, 7)}),
            "has shape [6] in one piece, [7] in another"));
  CHECK(has(refusal({piece(slice_of("a", {2, 2}, 0, 0, 1), 0, 2),
                     piece(slice_of("a", {2, 2}, 1, 1, 2), 0, 2)}),
            "cut along dimension 0 in one piece, 1"));
  CHECK(
      refusal({piece(whole_tensor("a", {1}), 0, 1), piece(whole_tensor("b", {1}), 0, 1, "exp_avg"),
               piece(whole_tensor("a", {1}), 0, 1, "exp_avg")}) ==
      "tensor b has exp_avg but no master");
}

TEST_CASE("each tensor has kinds of its own: frozen ones have their values alone") {
  const TensorIndex index({piece(whole_tensor("a", {1}), 0, 1),
                           piece(whole_tensor("a", {1}), 0, 1, "momentum"),
                           piece(whole_tensor("b", {1}), 0, 1)});
  CHECK(index.kinds_of("a") == std::vector<std::string>{"master", "momentum"});
  CHECK(index.kinds_of("b") == std::vector<std::string>{"master"});
  CHECK(index.has("momentum", "a"));
  CHECK_FALSE(index.has("momentum", "b"));
}

TEST_CASE("a strip of columns with a billion rows costs no more than its pieces") {
  const int64_t rows = int64_t{1} << 30;
  std::vector<ManifestPiece> pieces;
  for (int64_t tp = 0; tp < 64; ++tp) {
    for (int64_t dp = 0; dp < 64; ++dp) {
      pieces.push_back(
          piece(slice_of("a", {rows, 64}, 1, tp, tp + 1), rows / 64 * dp, rows / 64 * (dp + 1)));
    }
  }
  const std::clock_t begin = std::clock();  // of the processor: the machine may be busy
  CHECK(refusal(pieces) == "(nothing was thrown)");
  CHECK(std::clock() - begin < 10 * CLOCKS_PER_SEC);  // one run per row would take minutes
}

}  // namespace
}  // namespace tptrain::testing
