#include "data/sequential_batches.h"

#include <map>

#include "base/error.h"
#include "base/files.h"
#include "data/batch_sampler.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;
using Ids = std::vector<int64_t>;

constexpr int64_t kNone = formats::kNoLabel;

/// Documents of these lengths, token i of all is i + 1, so that padding is told apart. The labels
/// of multiples of `unlabelled` are none.
PreparedTokens counting_documents(const TempDir& dir, const std::vector<int>& lengths,
                                  int unlabelled = 0) {
  PreparedTokens prepared;
  prepared.path = dir / "train";
  prepared.identity = sha256_hex("counting");
  prepared.split = "train";
  formats::TokenFileWriter writer(prepared.path, 1000, prepared.identity,
                                  unlabelled > 0 ? formats::Labels::stored : formats::Labels::none);
  int32_t next = 1;
  for (const int length : lengths) {
    std::vector<int32_t> ids;
    std::vector<int32_t> labels;
    for (int i = 0; i < length; ++i, ++next) {
      ids.push_back(next);
      labels.push_back(unlabelled > 0 && next % unlabelled == 0 ? formats::kNoLabel : next);
    }
    if (unlabelled > 0) {
      writer.append(ids, labels);
    } else {
      writer.append(ids);
    }
    writer.end_document();
  }
  prepared.tokens = writer.commit().tokens;
  prepared.documents = static_cast<int64_t>(lengths.size());
  return prepared;
}

/// How often each token is a target, and whether each stands beside the token before it.
std::map<int64_t, int> targets_of(const SequentialBatches& batches, int dp_size) {
  std::map<int64_t, int> counts;
  for (int64_t round = 0; round < batches.rounds(); ++round) {
    for (int dp_rank = 0; dp_rank < dp_size; ++dp_rank) {
      const HostBatch batch = batches.batch(round, dp_rank);
      for (size_t i = 0; i < batch.targets.size(); ++i) {
        if (batch.targets[i] == kNone) continue;
        ++counts[batch.targets[i]];
        CHECK(batch.ids[i] == batch.targets[i] - 1);
      }
    }
  }
  return counts;
}

TEST_CASE("packing none: a document a sequence, targets inside it, the rest padded") {
  const TempDir dir;
  // As long as seq_length, one longer, shorter, one token, too long.
  const PreparedTokens tokens = counting_documents(dir, {4, 5, 2, 1, 7});
  const BatchSampler sampler(tokens, {.seq_length = 4, .micro_batch_size = 5},
                             {.shuffle = false, .packing = Packing::none});
  CHECK(sampler.windows() == 5);
  CHECK(sampler.truncated() == 1);
  const HostBatch batch = sampler.micro_batch(0, 0, 0);
  CHECK(batch.ids == Ids{1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 0, 0, 12, 0, 0, 0, 13, 14, 15, 16});
  CHECK(batch.targets == Ids{2,     3,     4,     kNone, 6,     7,     8,  9,  11, kNone,
                             kNone, kNone, kNone, kNone, kNone, kNone, 14, 15, 16, 17});
  CHECK(batch.target_tokens() == 3 + 4 + 1 + 0 + 4);
}

TEST_CASE("packing none: rows of 33 ids have 32 targets, at sequence length 32 and 33") {
  const TempDir dir;
  const PreparedTokens tokens = counting_documents(dir, std::vector<int>(8, 33));
  for (const int64_t seq_length : {int64_t{32}, int64_t{33}}) {
    const BatchSampler sampler(tokens, {.seq_length = seq_length, .micro_batch_size = 4},
                               {.shuffle = false, .packing = Packing::none});
    CHECK(sampler.truncated() == 0);
    const HostBatch batch = sampler.micro_batch(1, 0, 0);
    CHECK(batch.target_tokens() == 4 * 32);
    for (int64_t b = 0; b < 4; ++b) {
      const auto row = static_cast<size_t>(b * seq_length);
      CHECK(batch.ids[row] == (4 + b) * 33 + 1);
      CHECK(batch.targets[row + 31] == (4 + b) * 33 + 33);
      if (seq_length == 33) CHECK(batch.targets[row + 32] == kNone);
    }
  }
}

TEST_CASE("a label is the target of the position before it, with either packing") {
  const TempDir dir;
  const PreparedTokens tokens = counting_documents(dir, {3, 5}, /*unlabelled=*/3);
  const BatchSampler none(tokens, {.seq_length = 4, .micro_batch_size = 2},
                          {.shuffle = false, .packing = Packing::none});
  CHECK(none.micro_batch(0, 0, 0).targets == Ids{2, kNone, kNone, kNone, 5, kNone, 7, 8});
  const BatchSampler stream(tokens, {.seq_length = 7, .micro_batch_size = 1}, {.shuffle = false});
  CHECK(stream.micro_batch(0, 0, 0).targets == Ids{2, kNone, 4, 5, kNone, 7, 8});
  CHECK(stream.micro_batch(0, 0, 0).ids == Ids{1, 2, 3, 4, 5, 6, 7});
  const SequentialBatches all(tokens, {.seq_length = 7});
  CHECK(all.batch(0, 0).targets == Ids{2, kNone, kNone, 5, kNone, 7, 8});
}

TEST_CASE("packing none: shuffled epochs visit every document once") {
  const TempDir dir;
  const PreparedTokens tokens = counting_documents(dir, std::vector<int>(20, 3));
  const BatchSampler sampler(tokens, {.seq_length = 3, .micro_batch_size = 20},
                             {.seed = 3, .packing = Packing::none});
  std::map<int64_t, int> first_tokens;
  const HostBatch batch = sampler.micro_batch(0, 0, 0);
  for (int64_t b = 0; b < 20; ++b) ++first_tokens[batch.ids[static_cast<size_t>(b * 3)]];
  CHECK(first_tokens.size() == 20);
  CHECK(first_tokens.begin()->first == 1);
}

TEST_CASE("too few documents for a batch name what there is and what is needed") {
  const TempDir dir;
  const PreparedTokens tokens = counting_documents(dir, {4, 5});
  CHECK(message_of<DataError>([&] {
          BatchSampler(tokens, {.seq_length = 4, .micro_batch_size = 3},
                       {.packing = Packing::none});
        }) ==
        "data error: data.train: the text has 9 tokens in 2 document(s), enough for 2 sequence(s) "
        "of 4 tokens; one global batch is 3 (3 a micro-batch x 1 micro-batches x dp 1): it must "
        "have at least 3 documents, one a sequence.\n"
        "  Add documents, lower train.global_batch_size, or set data.packing: stream.");
}

TEST_CASE("with a document mask every row says where its documents end, padding included") {
  const TempDir dir;
  const PreparedTokens tokens = counting_documents(dir, {3, 2, 4});
  const auto ends = [&](Packing packing) {
    return SequentialBatches(tokens, {.seq_length = 4,
                                      .micro_batch_size = 4,
                                      .packing = packing,
                                      .document_mask = DocumentMask::on})
        .batch(0, 0)
        .document_ends;
  };
  CHECK(ends(Packing::stream) == Ids{3, 4, 5, 8, 12, 16});
  CHECK(ends(Packing::best_fit) == Ids{3, 4, 6, 8, 12, 16});
  CHECK(ends(Packing::none) == Ids{3, 4, 6, 8, 12, 16});
}

TEST_CASE("in order: every token but the first of a document is a target once, on any layout") {
  for (const std::vector<int>& lengths : {std::vector<int>{1},
                                          {2},
                                          {4},
                                          {5},
                                          {17},
                                          {1, 1, 1},
                                          {1, 9, 1, 1, 4, 2, 1},
                                          {5, 5, 5},
                                          {3, 20, 4}}) {
    const TempDir dir;
    const PreparedTokens tokens = counting_documents(dir, lengths);
    std::map<int64_t, int> expected;
    int64_t next = 1;
    for (const int length : lengths) {
      for (int i = 1; i < length; ++i) expected[next + i] = 1;
      next += length;
    }
    for (const Packing packing : {Packing::stream, Packing::best_fit, Packing::none}) {
      for (const int64_t seq_length : {1, 3, 4, 100}) {
        for (const int64_t micro_batch_size : {1, 2}) {
          for (const int dp_size : {1, 3}) {
            const DocumentMask mask = dp_size == 1 ? DocumentMask::off : DocumentMask::on;
            const SequentialBatches batches(tokens, {.seq_length = seq_length,
                                                     .micro_batch_size = micro_batch_size,
                                                     .dp_size = dp_size,
                                                     .packing = packing,
                                                     .document_mask = mask});
            INFO("seq_length " << seq_length << ", packing " << static_cast<int>(packing));
            CHECK(targets_of(batches, dp_size) == expected);
          }
        }
      }
    }
  }
}

TEST_CASE("in order: windows end to end, or each document by itself; the last ones are padded") {
  const TempDir dir;
  const PreparedTokens tokens = counting_documents(dir, {3, 4});
  const SequentialBatches stream(tokens, {.seq_length = 4, .micro_batch_size = 3});
  CHECK(stream.windows() == 2);
  CHECK(stream.rounds() == 1);
  CHECK(stream.batch(0, 0).ids == Ids{1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0});
  CHECK(stream.batch(0, 0).targets ==
        Ids{2, 3, kNone, 5, 6, 7, kNone, kNone, kNone, kNone, kNone, kNone});

  const SequentialBatches each(
      tokens, {.seq_length = 2, .micro_batch_size = 1, .dp_size = 2, .packing = Packing::none});
  CHECK(each.windows() == 3);
  CHECK(each.rounds() == 2);
  CHECK(each.batch(0, 0).ids == Ids{1, 2});
  CHECK(each.batch(0, 0).targets == Ids{2, 3});
  CHECK(each.batch(0, 1).ids == Ids{4, 5});
  CHECK(each.batch(0, 1).first_sample == 1);
  CHECK(each.batch(1, 0).ids == Ids{6, 7});
  CHECK(each.batch(1, 0).targets == Ids{7, kNone});
  CHECK(each.batch(1, 1).target_tokens() == 0);
}

TEST_CASE("in order: places and shapes that cannot be, and other files, are refused") {
  const TempDir dir;
  PreparedTokens tokens = counting_documents(dir, {3, 4});
  const SequentialBatches batches(tokens, {.seq_length = 4, .micro_batch_size = 1});
  CHECK(message_of<InternalError>([&] { batches.batch(2, 0); }) ==
        "internal error: batch 2 for dp rank 0 asked for: it must be of 2 and 1 dp ranks.");
  CHECK_THROWS_AS(batches.batch(0, 1), InternalError);
  CHECK(has(message_of<InternalError>([&] { SequentialBatches(tokens, {}); }),
            "sequential batches of seq_length 0"));
  tokens.identity = sha256_hex("other");
  CHECK(has(message_of<DataError>([&] { SequentialBatches(tokens, {.seq_length = 4}); }),
            "that were prepared for this run"));
}

}  // namespace
}  // namespace tptrain::data
