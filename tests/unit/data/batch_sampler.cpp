#include "data/batch_sampler.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "data/permutation.h"
#include "formats/token_file.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;

/// Token i is i, so a sequence tells which window it is.
PreparedTokens counting_tokens(const TempDir& dir, int64_t count,
                               const std::string& split = "train") {
  PreparedTokens prepared;
  prepared.path = dir / split;
  prepared.identity = sha256_hex("counting");
  prepared.tokens = count;
  prepared.documents = 1;
  prepared.split = split;
  formats::TokenFileWriter writer(prepared.path, std::max<int64_t>(count, 1), prepared.identity);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 0);
  writer.append(tokens);
  if (count > 0) writer.end_document();
  writer.commit();
  return prepared;
}

/// Token i is i again, in documents that end where `ends` says.
PreparedTokens documents(const TempDir& dir, const std::vector<int64_t>& ends) {
  PreparedTokens prepared;
  prepared.path = dir / "train";
  prepared.identity = sha256_hex("documents");
  prepared.tokens = ends.back();
  prepared.documents = static_cast<int64_t>(ends.size());
  prepared.split = "train";
  formats::TokenFileWriter writer(prepared.path, ends.back(), prepared.identity);
  int64_t begin = 0;
  for (const int64_t end : ends) {
    std::vector<int32_t> tokens(static_cast<size_t>(end - begin));
    std::iota(tokens.begin(), tokens.end(), static_cast<int32_t>(begin));
    writer.append(tokens);
    writer.end_document();
    begin = end;
  }
  writer.commit();
  return prepared;
}

constexpr SamplerOptions kMasked = {.shuffle = false, .document_mask = DocumentMask::on};
constexpr int64_t kNo = formats::kNoLabel;

/// The windows of a step in the order (micro, dp_rank, row).
std::vector<int64_t> windows_of(const BatchSampler& sampler, int64_t step) {
  std::vector<int64_t> windows;
  const BatchShape& shape = sampler.shape();
  for (int64_t micro = 0; micro < shape.accumulation; ++micro) {
    for (int dp_rank = 0; dp_rank < shape.dp_size; ++dp_rank) {
      const HostBatch batch = sampler.micro_batch(step, dp_rank, micro);
      for (int64_t b = 0; b < batch.batch; ++b) {
        windows.push_back(batch.ids[static_cast<size_t>(b * shape.seq_length)] / shape.seq_length);
      }
    }
  }
  return windows;
}

TEST_CASE("a window is seq_length ids and the token after each; its last token is only a target") {
  const TempDir dir;
  const BatchSampler sampler(counting_tokens(dir, 13), {.seq_length = 4, .micro_batch_size = 3},
                             {.shuffle = false});
  CHECK(sampler.windows() == 3);
  const HostBatch batch = sampler.micro_batch(0, 0, 0);
  CHECK(batch.batch == 3);
  CHECK(batch.seq_length == 4);
  CHECK(batch.ids == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(batch.targets == std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  CHECK(batch.target_tokens() == 12);
}

TEST_CASE("an evaluation takes what is left behind the last whole window, and less than a batch") {
  const TempDir dir;
  const SamplerOptions options = {
      .shuffle = false, .last_window = LastWindow::padded, .whole_batches = false};
  const BatchShape shape = {.seq_length = 4, .micro_batch_size = 4};
  const BatchSampler sampler(counting_tokens(dir, 11), shape, options);
  CHECK(sampler.windows() == 3);
  const HostBatch batch = sampler.micro_batch(0, 0, 0);
  CHECK(std::vector<int64_t>(batch.ids.begin() + 8, batch.ids.begin() + 12) ==
        std::vector<int64_t>{8, 9, 10, 0});
  CHECK(std::vector<int64_t>(batch.targets.begin() + 8, batch.targets.begin() + 12) ==
        std::vector<int64_t>{9, 10, kNo, kNo});
  // Nothing is left behind the token that is only a target.
  CHECK(BatchSampler(counting_tokens(dir, 9), shape, options).windows() == 2);
  SamplerOptions masked = options;
  masked.document_mask = DocumentMask::on;
  const HostBatch apart = BatchSampler(documents(dir, {6, 10}), shape, masked).micro_batch(0, 0, 0);
  CHECK(std::vector<int64_t>(apart.document_ends.begin(), apart.document_ends.begin() + 5) ==
        std::vector<int64_t>{4, 6, 8, 10, 12});
  CHECK(has(
      message_of<DataError>([&] { BatchSampler(counting_tokens(dir, 1, "eval"), shape, options); }),
      "data.eval: the text has 1 tokens"));
}

TEST_CASE("without shuffling, windows come in order and go on into the next epoch") {
  const TempDir dir;
  const BatchSampler sampler(counting_tokens(dir, 4 * 5 + 1),
                             {.seq_length = 4, .micro_batch_size = 2}, {.shuffle = false});
  CHECK(sampler.windows() == 5);
  CHECK(windows_of(sampler, 0) == std::vector<int64_t>{0, 1});
  CHECK(windows_of(sampler, 2) == std::vector<int64_t>{4, 0});
  CHECK(windows_of(sampler, 1000000) == std::vector<int64_t>{0, 1});
}

TEST_CASE("every window is visited exactly once an epoch, in another order each epoch and seed") {
  const TempDir dir;
  for (const int64_t count : {1, 2, 3, 7, 64, 65, 1000}) {
    const PreparedTokens tokens = counting_tokens(dir, count * 3 + 1);
    const auto epoch_of = [&](uint64_t seed, int64_t epoch) {
      const BatchSampler sampler(tokens, {.seq_length = 3, .micro_batch_size = 1}, {.seed = seed});
      std::vector<int64_t> order;
      for (int64_t step = 0; step < count; ++step) {
        order.push_back(windows_of(sampler, epoch * count + step).at(0));
      }
      return order;
    };
    const std::vector<int64_t> first = epoch_of(7, 0);
    std::vector<int64_t> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    for (std::vector<int64_t> order : {first, epoch_of(7, 1), epoch_of(8, 0)}) {
      if (count >= 64) CHECK(order != all);
      std::sort(order.begin(), order.end());
      CHECK(order == all);
    }
    if (count < 64) continue;  // few windows have few orders
    CHECK(epoch_of(7, 1) != first);
    CHECK(epoch_of(8, 0) != first);
    CHECK(epoch_of(7, 0) == first);
  }
}

TEST_CASE(
    "a batch depends on nothing but seed, step and place: neither on the calls before nor the "
    "object") {
  const TempDir dir;
  const PreparedTokens tokens = counting_tokens(dir, 1000);
  const BatchShape shape{.seq_length = 8, .micro_batch_size = 2, .accumulation = 3, .dp_size = 2};
  const BatchSampler forward(tokens, shape, {.seed = 1});
  const BatchSampler backward(tokens, shape, {.seed = 1});
  std::map<int64_t, std::vector<int64_t>> seen;
  for (int64_t step = 0; step < 30; ++step) seen[step] = windows_of(forward, step);
  for (int64_t step = 29; step >= 0; --step) CHECK(windows_of(backward, step) == seen[step]);
  BatchSampler moved(tokens, shape, {.seed = 1});
  const BatchSampler target(std::move(moved));
  CHECK(windows_of(target, 5) == seen[5]);
}

TEST_CASE("the global batch is the same whatever dp and accumulation") {
  const TempDir dir;
  const PreparedTokens tokens =
      counting_tokens(dir, 50 * 4 + 1);  // 50 windows: 12 do not divide them
  const auto steps_of = [&](BatchShape shape) {
    shape.seq_length = 4;
    const BatchSampler sampler(tokens, shape, {.seed = 3});
    REQUIRE(shape.global_batch_size() == 12);
    std::vector<std::vector<int64_t>> steps;
    for (int64_t step = 0; step < 10; ++step) steps.push_back(windows_of(sampler, step));
    return steps;
  };
  const auto reference = steps_of({.micro_batch_size = 12, .accumulation = 1, .dp_size = 1});
  for (const BatchShape& shape :
       {BatchShape{.micro_batch_size = 1, .accumulation = 12, .dp_size = 1},
        BatchShape{.micro_batch_size = 1, .accumulation = 1, .dp_size = 12},
        BatchShape{.micro_batch_size = 3, .accumulation = 2, .dp_size = 2},
        BatchShape{.micro_batch_size = 1, .accumulation = 3, .dp_size = 4},
        BatchShape{.micro_batch_size = 2, .accumulation = 1, .dp_size = 6}}) {
    CHECK(steps_of(shape) == reference);
  }
}

TEST_CASE("the order stays as it is from version to version: a resumed run depends on it") {
  const TempDir dir;
  const BatchSampler sampler(counting_tokens(dir, 100 * 2 + 1),
                             {.seq_length = 2, .micro_batch_size = 8}, {.seed = 42});
  // From a separate implementation in Python of what permutation.h says.
  CHECK(windows_of(sampler, 0) == std::vector<int64_t>{20, 73, 74, 58, 11, 72, 99, 23});
  CHECK(windows_of(sampler, 13) == std::vector<int64_t>{17, 37, 9, 61, 84, 97, 99, 25});
}

TEST_CASE("a shuffled window lands anywhere with equal chance") {
  // 10 windows, 20,000 seeds: each (window, place) is expected 2,000 times, with a standard
  // deviation of 42.4; six of them are allowed.
  constexpr int kWindows = 10;
  constexpr int kSeeds = 20000;
  std::map<std::pair<int64_t, int64_t>, int> counts;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Permutation permutation(kWindows, seed, 0);
    for (int64_t i = 0; i < kWindows; ++i) ++counts[{i, permutation(i)}];
  }
  CHECK(counts.size() == kWindows * kWindows);
  for (const auto& [place, count] : counts) {
    INFO("window " << place.first << " at " << place.second);
    CHECK(std::abs(count - kSeeds / kWindows) < 6 * 42.4);
  }
}

TEST_CASE("a permutation of many elements needs no table and stays inside") {
  const int64_t size = (int64_t{1} << 40) + 12345;
  const Permutation permutation(size, 1, 2);
  std::set<int64_t> images;
  for (int64_t i = 0; i < 10000; ++i) {
    const int64_t image = permutation(size - 1 - i);
    CHECK((image >= 0 && image < size));
    images.insert(image);
  }
  CHECK(images.size() == 10000);
}

TEST_CASE("the hash of a batch changes with any token, target or shape") {
  HostBatch batch{.batch = 2, .seq_length = 2, .ids = {1, 2, 3, 4}, .targets = {2, 3, 4, 5}};
  const uint64_t hash = batch.hash();
  CHECK(HostBatch(batch).hash() == hash);
  for (size_t i = 0; i < 4; ++i) {
    HostBatch other = batch;
    other.ids[i] += 1;
    CHECK(other.hash() != hash);
    other = batch;
    other.targets[i] = -100;
    CHECK(other.hash() != hash);
    CHECK(other.target_tokens() == 3);
  }
  HostBatch swapped = batch;
  std::swap(swapped.ids[0], swapped.ids[1]);
  CHECK(swapped.hash() != hash);
  HostBatch reshaped = batch;
  reshaped.batch = 1;
  reshaped.seq_length = 4;
  CHECK(reshaped.hash() != hash);
}

TEST_CASE("documents of a stream end within, at and beyond the borders of its windows") {
  const TempDir dir;
  // Windows of 6: [0, 6) holds documents of 2 and 3 and the first token of the third, which goes on
  // into [6, 12) and ends with it; [12, 18) is the middle of the last.
  const PreparedTokens tokens = documents(dir, {2, 5, 12, 21});
  const BatchSampler sampler(tokens, {.seq_length = 6, .micro_batch_size = 3}, kMasked);
  REQUIRE(sampler.windows() == 3);
  const HostBatch batch = sampler.micro_batch(0, 0, 0);
  CHECK(batch.ids ==
        std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17});
  CHECK(batch.document_ends == std::vector<int64_t>{2, 5, 6, 12, 18});
  CHECK(batch.documents() == 5);
  // 5 goes on in the next window and keeps its target; 11 is the last of its document.
  CHECK(batch.targets ==
        std::vector<int64_t>{1, kNo, 3, 4, kNo, 6, 7, 8, 9, 10, 11, kNo, 13, 14, 15, 16, 17, 18});
  CHECK(batch.positions() ==
        std::vector<int64_t>{0, 1, 0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5});
  CHECK(batch.target_tokens() == 15);

  const HostBatch plain =
      BatchSampler(tokens, {.seq_length = 6, .micro_batch_size = 3}, {.shuffle = false})
          .micro_batch(0, 0, 0);
  CHECK(plain.ids == batch.ids);
  CHECK(plain.document_ends.empty());
  CHECK(plain.documents() == 0);
  CHECK(plain.target_tokens() == 18);
}

TEST_CASE("documents of one token, and windows of one token, have no target of their own") {
  const TempDir dir;
  const PreparedTokens tokens = documents(dir, {1, 2, 3, 5, 6});
  const HostBatch batch =
      BatchSampler(tokens, {.seq_length = 5, .micro_batch_size = 1}, kMasked).micro_batch(0, 0, 0);
  CHECK(batch.document_ends == std::vector<int64_t>{1, 2, 3, 5});
  CHECK(batch.targets == std::vector<int64_t>{kNo, kNo, kNo, 4, kNo});
  CHECK(batch.positions() == std::vector<int64_t>{0, 0, 0, 0, 1});
  const HostBatch ones =
      BatchSampler(tokens, {.seq_length = 1, .micro_batch_size = 5}, kMasked).micro_batch(0, 0, 0);
  CHECK(ones.document_ends == std::vector<int64_t>{1, 2, 3, 4, 5});
  CHECK(ones.targets == std::vector<int64_t>{kNo, kNo, kNo, 4, kNo});
}

TEST_CASE("with one document a sequence, padding is a document without targets") {
  const TempDir dir;
  const PreparedTokens tokens = documents(dir, {2, 6, 11, 20});
  SamplerOptions options = kMasked;
  options.packing = Packing::none;
  const HostBatch batch =
      BatchSampler(tokens, {.seq_length = 4, .micro_batch_size = 4}, options).micro_batch(0, 0, 0);
  CHECK(batch.ids == std::vector<int64_t>{0, 1, 0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14});
  CHECK(batch.document_ends == std::vector<int64_t>{2, 4, 8, 12, 16});
  // As without the mask: a document of seq_length + 1 tokens or more has a target everywhere.
  CHECK(batch.targets ==
        std::vector<int64_t>{1, kNo, kNo, kNo, 3, 4, 5, kNo, 7, 8, 9, 10, 12, 13, 14, 15});
  options.document_mask = DocumentMask::off;
  CHECK(BatchSampler(tokens, {.seq_length = 4, .micro_batch_size = 4}, options)
            .micro_batch(0, 0, 0)
            .targets == batch.targets);
}

TEST_CASE("with best fit documents are whole where they can be; what is left of a row is padding") {
  const TempDir dir;
  // Of 4: [0, 2) and [2, 4) lie together, [4, 11) is cut into four and three, [11, 12) predicts
  // nothing.
  const PreparedTokens tokens = documents(dir, {2, 4, 11, 12});
  SamplerOptions options = kMasked;
  options.packing = Packing::best_fit;
  const BatchSampler sampler(tokens, {.seq_length = 4, .micro_batch_size = 3}, options);
  REQUIRE(sampler.windows() == 3);
  CHECK(sampler.truncated() == 0);
  CHECK(std::abs(sampler.padding() - 1.0 / 12) < 1e-12);
  const HostBatch batch = sampler.micro_batch(0, 0, 0);
  CHECK(batch.ids == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0});
  CHECK(batch.targets == std::vector<int64_t>{1, kNo, 3, kNo, 5, 6, 7, 8, 9, 10, kNo, kNo});
  CHECK(batch.document_ends == std::vector<int64_t>{2, 4, 8, 11, 12});
  options.document_mask = DocumentMask::off;
  const HostBatch plain =
      BatchSampler(tokens, {.seq_length = 4, .micro_batch_size = 3}, options).micro_batch(0, 0, 0);
  CHECK(plain.ids == batch.ids);
  CHECK(plain.targets == batch.targets);
  CHECK(plain.document_ends.empty());

  const std::string too_few = message_of<DataError>(
      [&] { BatchSampler(tokens, {.seq_length = 4, .micro_batch_size = 4}, options); });
  CHECK(has(too_few, "enough for 3 sequence(s) of 4 tokens; one global batch is 4"));
  CHECK(has(too_few, "have at least documents that fill 4 sequences"));
}

TEST_CASE("padding is what an epoch's positions hold beside tokens") {
  const TempDir dir;
  const PreparedTokens tokens = documents(dir, {2, 6, 11, 20});
  const auto padding_with = [&](Packing packing) {
    return BatchSampler(tokens, {.seq_length = 4, .micro_batch_size = 1}, {.packing = packing})
        .padding();
  };
  CHECK(padding_with(Packing::stream) == 0);
  CHECK(padding_with(Packing::none) == 2.0 / 16);
}

TEST_CASE("masked documents of shuffled windows are those of the text, on every layout") {
  const TempDir dir;
  std::vector<int64_t> ends;
  for (int64_t end = 3; end < 400; end += 1 + end * 7 % 11) ends.push_back(end);
  const PreparedTokens tokens = documents(dir, ends);
  const std::set<int64_t> of_text(ends.begin(), ends.end());
  for (const BatchShape shape :
       {BatchShape{.micro_batch_size = 6, .accumulation = 1, .dp_size = 1},
        BatchShape{.micro_batch_size = 1, .accumulation = 3, .dp_size = 2}}) {
    BatchShape of_nine = shape;
    of_nine.seq_length = 9;
    const BatchSampler sampler(tokens, of_nine,
                               {.seed = 4, .shuffle = true, .document_mask = DocumentMask::on});
    for (int64_t step = 0; step < 20; ++step) {
      for (int64_t micro = 0; micro < shape.accumulation; ++micro) {
        for (int dp_rank = 0; dp_rank < shape.dp_size; ++dp_rank) {
          const HostBatch batch = sampler.micro_batch(step, dp_rank, micro);
          const std::set<int64_t> in_batch(batch.document_ends.begin(), batch.document_ends.end());
          REQUIRE(static_cast<int64_t>(in_batch.size()) == batch.documents());
          REQUIRE(std::is_sorted(batch.document_ends.begin(), batch.document_ends.end()));
          const std::vector<int64_t> positions = batch.positions();
          for (int64_t at = 0; at < batch.batch * 9; ++at) {
            // Token i is i: the id says whether its document ends behind it.
            const bool ends_here = of_text.count(batch.ids[at] + 1) == 1;
            CHECK(in_batch.count(at + 1) == (ends_here || (at + 1) % 9 == 0 ? 1 : 0));
            CHECK(batch.targets[at] == (ends_here ? kNo : batch.ids[at] + 1));
            CHECK(positions[at] == (at == 0 || in_batch.count(at) ? 0 : positions[at - 1] + 1));
          }
        }
      }
    }
  }
}

TEST_CASE("the hash of a batch changes with where documents end") {
  HostBatch batch{.batch = 1, .seq_length = 4, .ids = {1, 2, 3, 4}, .targets = {2, 3, 4, 5}};
  std::set<uint64_t> hashes = {batch.hash()};
  for (const std::vector<int64_t>& ends :
       std::vector<std::vector<int64_t>>{{4}, {1, 4}, {2, 4}, {3, 4}, {1, 2, 4}, {1, 2, 3, 4}}) {
    batch.document_ends = ends;
    hashes.insert(batch.hash());
  }
  CHECK(hashes.size() == 7);
}

TEST_CASE("too little text names the key, what there is and what is needed") {
  const TempDir dir;
  const BatchShape shape{.seq_length = 4, .micro_batch_size = 3, .accumulation = 2, .dp_size = 2};
  const PreparedTokens enough = counting_tokens(dir, 49);
  CHECK_NOTHROW(BatchSampler(enough, shape, {}));
  const PreparedTokens eval = counting_tokens(dir, 48, "eval");
  CHECK(
      message_of<DataError>([&] { BatchSampler(eval, shape, {}); }) ==
      "data error: data.eval: the text has 48 tokens in 1 document(s), enough for 11 sequence(s) "
      "of 4 "
      "tokens; one global batch is 12 (3 a micro-batch x 2 micro-batches x dp 2): it must have at "
      "least 49 tokens.\n"
      "  Add text, or lower train.seq_length or train.global_batch_size.");
  CHECK(has(message_of<DataError>([&] { BatchSampler(counting_tokens(dir, 0), shape, {}); }),
            "data.train: the text has 0 tokens"));
}

TEST_CASE("a token file that is missing, damaged or another run's is refused") {
  const TempDir dir;
  const BatchShape shape{.seq_length = 4, .micro_batch_size = 1};
  PreparedTokens tokens = counting_tokens(dir, 100);
  PreparedTokens other = tokens;
  other.identity = sha256_hex("other");
  const std::string message = message_of<DataError>([&] { BatchSampler(other, shape, {}); });
  CHECK(has(message, tokens.path.string() + ": the token file holds 100 tokens of identity " +
                         tokens.identity + ": it must hold the 100 tokens of identity " +
                         other.identity + " that were prepared for this run"));
  CHECK(has(message, "Check that every host sees the same folder"));
  dir.put("train.bin", "short");
  CHECK(
      has(message_of<DataError>([&] { BatchSampler(tokens, shape, {}); }), "the file has 5 bytes"));
  tokens.path = dir / "missing";
  CHECK(has(message_of<DataError>([&] { BatchSampler(tokens, shape, {}); }),
            "missing.idx: open failed"));
}

TEST_CASE("places and shapes that cannot be are refused") {
  const TempDir dir;
  const PreparedTokens tokens = counting_tokens(dir, 100);
  const BatchSampler sampler(
      tokens, {.seq_length = 4, .micro_batch_size = 1, .accumulation = 2, .dp_size = 2}, {});
  CHECK(message_of<InternalError>([&] { sampler.micro_batch(0, 2, 0); }) ==
        "internal error: micro-batch 0 of step 0 for dp rank 2 asked for: it must be of 2 "
        "micro-batches "
        "and 2 dp ranks.");
  CHECK_THROWS_AS(sampler.micro_batch(0, 0, 2), InternalError);
  CHECK_THROWS_AS(sampler.micro_batch(-1, 0, 0), InternalError);
  CHECK(has(message_of<InternalError>([&] { BatchSampler(tokens, {.seq_length = 0}, {}); }),
            "batch shape: seq_length 0"));
}

}  // namespace
}  // namespace tptrain::data
