// Which heads a tp rank works on.
#include "model/head_share.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "support/catch.h"

namespace tptrain::testing {
namespace {

using model::DecoderConfig;
using model::head_share;
using model::HeadShare;

DecoderConfig with_heads(int64_t heads, int64_t kv_heads) {
  DecoderConfig config;
  config.vocab_size = 1003;
  config.hidden_size = 64;
  config.intermediate_size = 172;
  config.num_hidden_layers = 1;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = 4;
  return config;
}

struct Shares {
  std::vector<int64_t> heads;
  std::vector<int64_t> kv_begin;
  std::vector<int64_t> kv_heads;
};

Shares shares(const DecoderConfig& config, int tp_size) {
  Shares all;
  for (int rank = 0; rank < tp_size; ++rank) {
    const HeadShare share = head_share(config, rank, tp_size);
    all.heads.push_back(share.heads.size());
    all.kv_begin.push_back(share.kv_heads.begin);
    all.kv_heads.push_back(share.kv_heads.size());
  }
  return all;
}

using Sizes = std::vector<int64_t>;

TEST_CASE("14 heads on 2 kv heads over 4 ranks: 4, 3, 4, 3, each kv head twice") {
  const Shares all = shares(with_heads(14, 2), 4);
  CHECK(all.heads == Sizes{4, 3, 4, 3});
  CHECK(all.kv_begin == Sizes{0, 0, 1, 1});
  CHECK(all.kv_heads == Sizes{1, 1, 1, 1});
  for (int rank = 0; rank < 4; ++rank) {
    const HeadShare share = head_share(with_heads(14, 2), rank, 4);
    CAPTURE(rank);
    CHECK(share.kv_copies.part == rank / 2);
    CHECK(share.kv_copies.parts == 2);
    CHECK(share.owns_kv == (rank % 2 == 0));
  }
}

TEST_CASE("one kv head is held by every rank and owned by the first") {
  const Shares all = shares(with_heads(6, 1), 4);
  CHECK(all.heads == Sizes{2, 2, 1, 1});
  CHECK(all.kv_begin == Sizes{0, 0, 0, 0});
  CHECK(head_share(with_heads(6, 1), 0, 4).owns_kv);
  CHECK_FALSE(head_share(with_heads(6, 1), 3, 4).owns_kv);
  CHECK(head_share(with_heads(6, 1), 3, 4).kv_copies.parts == 1);
}

TEST_CASE("kv heads that do not divide stay whole, with all their query heads") {
  const Shares all = shares(with_heads(6, 3), 2);
  CHECK(all.heads == Sizes{4, 2});
  CHECK(all.kv_heads == Sizes{2, 1});
  CHECK(all.kv_begin == Sizes{0, 2});
  CHECK(head_share(with_heads(6, 3), 0, 2).kv_copies.parts == 0);
}

TEST_CASE(
    "every query head is on one rank, beside the kv head it reads; every kv head has one owner") {
  for (const auto& [heads, kv] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 1}, {8, 8}, {14, 2}, {6, 3}, {12, 4}, {40, 5}, {28, 4}, {71, 1}}) {
    const DecoderConfig config = with_heads(heads, kv);
    const int64_t group = heads / kv;
    for (const int64_t tp : model::working_tp_sizes(config)) {
      CAPTURE(heads, kv, tp);
      int64_t next = 0;
      std::vector<int> owners(static_cast<size_t>(kv), 0);
      for (int rank = 0; rank < tp; ++rank) {
        const HeadShare share = head_share(config, rank, static_cast<int>(tp));
        REQUIRE(share.heads.begin == next);
        REQUIRE(share.heads.size() > 0);
        REQUIRE(share.heads.begin / group == share.kv_heads.begin);
        REQUIRE((share.heads.end - 1) / group == share.kv_heads.end - 1);
        REQUIRE(share.heads.size() % share.kv_heads.size() == 0);
        for (int64_t i = share.kv_heads.begin; i < share.kv_heads.end && share.owns_kv; ++i)
          ++owners[static_cast<size_t>(i)];
        next = share.heads.end;
      }
      CHECK(next == heads);
      CHECK(owners == std::vector<int>(static_cast<size_t>(kv), 1));
    }
  }
}

}  // namespace
}  // namespace tptrain::testing
