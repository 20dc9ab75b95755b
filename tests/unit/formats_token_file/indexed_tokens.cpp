// Megatron's token files: read, written, and refused where an index does not fit.
#include "formats/indexed_tokens.h"

#include <cstring>
#include <ctime>
#include <fstream>
#include <random>

#include "base/error.h"
#include "base/files.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::formats {
namespace {

namespace fs = std::filesystem;
using testing::has;
using testing::message_of;
using testing::TempDir;

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

struct Index {
  uint64_t version = 1;
  uint8_t type = 4;
  std::vector<int32_t> lengths;
  std::vector<int64_t> begins;
  std::vector<int64_t> documents;
  std::string text() const {
    std::string out(kIndexedMagic);
    put(out, version);
    put(out, type);
    put(out, static_cast<uint64_t>(lengths.size()));
    put(out, static_cast<uint64_t>(documents.size()));
    for (const int32_t length : lengths) put(out, length);
    for (const int64_t begin : begins) put(out, begin);
    for (const int64_t document : documents) put(out, document);
    return out;
  }
};

/// Four sequences in three documents, one of them empty: 2, 3 | - | 0, 4 tokens.
Index example() {
  return {.lengths = {2, 3, 0, 4}, .begins = {0, 8, 20, 20}, .documents = {0, 2, 2, 4}};
}

std::string refusal(const Index& index, int64_t bin_bytes = 36) {
  return message_of<DataError>([&] { decode_indexed_index(index.text(), bin_bytes, "a.idx"); });
}

TEST_CASE("an index gives the ends of documents; empty ones and the border of sequences go") {
  const IndexedHeader header = decode_indexed_index(example().text(), 36, "a.idx");
  CHECK(header.type == StoredToken::int32);
  CHECK(header.tokens == 9);
  CHECK(header.document_ends == std::vector<int64_t>{5, 9});
  // Multimodal data sets have a mode for each sequence behind the tables.
  CHECK(decode_indexed_index(example().text() + std::string(4, '\0'), 36, "a").tokens == 9);
}

TEST_CASE("an index that does not fit its .bin, or itself, is refused") {
  CHECK(has(refusal(example(), 35),
            "a.idx: the sequences take at least 36 bytes (4 a token), and the .bin "
            "beside it has 35: it must describe the .bin beside it"));
  CHECK(has(refusal(example(), 40), "and the .bin beside it has 40"));
  Index index = example();
  index.begins[3] = 1'000'000;
  CHECK(has(refusal(index), "sequence 3 begins at byte 1000000, the one before ends at 20"));
  index = example();
  index.lengths[1] = -3;
  CHECK(has(refusal(index), "sequence 1 has -3 tokens"));
  index = example();
  index.lengths = {2147483647, 2147483647, 2147483647, 2147483647};
  index.begins = {0, 2147483647LL * 4, 2147483647LL * 8, 2147483647LL * 12};
  CHECK(has(refusal(index), "the sequences take at least"));
  index = example();
  index.documents = {0, 3, 2, 4};
  CHECK(has(refusal(index), "document 1 ends at sequence 2, the one before at 3"));
  index.documents = {0, 5};
  CHECK(has(refusal(index), "document 0 ends at sequence 5"));
  index.documents = {1, 4};
  CHECK(has(refusal(index), "the first document begins at sequence 1"));
  index.documents = {0, 2};
  CHECK(has(refusal(index), "its documents end at token 5 of 9"));
  index = example();
  index.version = 2;
  CHECK(has(refusal(index), "the version is 2: it must be 1"));
  index = example();
  index.type = 7;
  CHECK(has(refusal(index), "the type of its tokens is number 7"));
  const std::string text = example().text();
  for (size_t size = 0; size < text.size(); ++size) {
    CHECK_THROWS_AS(decode_indexed_index(text.substr(0, size), 36, "a"), DataError);
  }
  // Counts that overflow the sum of sizes.
  std::string counts = text;
  const uint64_t huge = ~uint64_t{0} / 12 + 1;
  std::memcpy(counts.data() + 18, &huge, sizeof huge);
  CHECK(
      has(message_of<DataError>([&] { decode_indexed_index(counts, 36, "a"); }), "says it lists"));
}

TEST_CASE("every byte of an index may be any other: refused, or what it says fits the .bin") {
  const std::string text = example().text();
  std::mt19937_64 random(20260603);
  for (int round = 0; round < 20'000; ++round) {
    std::string changed = text;
    for (int n = 1 + static_cast<int>(random() % 3); n > 0; --n)
      changed[random() % changed.size()] = static_cast<char>(random());
    try {
      const IndexedHeader header = decode_indexed_index(changed, 36, "a");
      REQUIRE(header.tokens * bytes_of(header.type) == 36);
      int64_t last = 0;
      for (const int64_t end : header.document_ends) {
        REQUIRE(end > last);
        last = end;
      }
      REQUIRE(last == header.tokens);
    } catch (const DataError&) {
      // A refusal is one of the right answers.
    }
  }
}

TEST_CASE("tokens of every type are read, over the border of files, and ids are checked") {
  const TempDir dir;
  std::string narrow;
  for (const int token : {1, 2, 3}) put(narrow, static_cast<uint8_t>(token));
  dir.put("a.bin", narrow);
  dir.put("a.idx", Index{.type = 1, .lengths = {3}, .begins = {0}, .documents = {0, 1}}.text());
  std::string wide;
  for (const int64_t token : {4, 5, 70'000}) put(wide, token);
  dir.put("b.bin", wide);
  dir.put("b.idx",
          Index{.type = 5, .lengths = {2, 1}, .begins = {0, 16}, .documents = {0, 1, 2}}.text());
  const TokenFile file = TokenFile::indexed({dir / "a", dir / "b"}, 70'001);
  CHECK(file.tokens() == 6);
  CHECK(file.header().document_ends == std::vector<int64_t>{3, 5, 6});
  std::vector<int64_t> tokens(4);
  file.copy(2, tokens);
  CHECK(tokens == std::vector<int64_t>{3, 4, 5, 70'000});
  file.copy_labels(0, tokens);
  CHECK(tokens == std::vector<int64_t>{1, 2, 3, 4});
  const TokenFile small = TokenFile::indexed({dir / "a", dir / "b"}, 70'000);
  CHECK(message_of<DataError>([&] { small.copy(2, tokens); }) ==
        "data error: " + (dir / "b.bin").string() +
            ": token 2 is 70000: it must be below the vocabulary size, 70000.\n"
            "  Was the file made with another tokenizer? Make it with the model's.");
  const std::string identity = file.header().identity;
  CHECK(small.header().identity == identity);
  CHECK(TokenFile::indexed({dir / "b", dir / "a"}, 70'001).header().identity != identity);
  put(wide, int64_t{0});
  dir.put("b.bin", wide.substr(8));
  CHECK(TokenFile::indexed({dir / "a", dir / "b"}, 70'001).header().identity != identity);
  CHECK_THROWS_AS(TokenFile::indexed({dir / "none"}, 10), DataError);
}

TEST_CASE("what is written is read back, and is what Megatron reads") {
  const TempDir dir;
  for (const int64_t vocab_size : {300, 100'000}) {
    TokenFileWriter writer(dir / "own", vocab_size, sha256_hex("x"));
    const std::vector<int32_t> first = {1, 2, 299};
    const std::vector<int32_t> second = {4};
    writer.append(first);
    writer.end_document();
    writer.append(second);
    writer.end_document();
    writer.commit();
    write_indexed(TokenFile(dir / "own"), dir / "out");
    const TokenFile file = TokenFile::indexed({dir / "out"}, vocab_size);
    CHECK(file.header().document_ends == std::vector<int64_t>{3, 4});
    std::vector<int64_t> tokens(4);
    file.copy(0, tokens);
    CHECK(tokens == std::vector<int64_t>{1, 2, 299, 4});
    const bool small = vocab_size == 300;
    CHECK(testing::contents_of(dir / "out.idx") ==
          Index{.type = static_cast<uint8_t>(small ? 8 : 4),
                .lengths = {3, 1},
                .begins = {0, small ? 6 : 12},
                .documents = {0, 1, 2}}
              .text());
  }
}

TEST_CASE("ten gigabytes open without being read") {
  const TempDir dir;
  constexpr int64_t kTokens = int64_t{10} << 30 >> 2;
  constexpr int32_t kLength = 1 << 20;
  Index index;
  for (int64_t begin = 0; begin < kTokens; begin += kLength) {
    index.lengths.push_back(kLength);
    index.begins.push_back(begin * 4);
    index.documents.push_back(static_cast<int64_t>(index.documents.size()));
  }
  index.documents.push_back(static_cast<int64_t>(index.documents.size()));
  dir.put("a.idx", index.text());
  dir.put("a.bin", "");
  fs::resize_file(dir / "a.bin", kTokens * 4);  // sparse: reads as zeros
  const std::clock_t begin = std::clock();      // of the processor: the machine may be busy
  const TokenFile file = TokenFile::indexed({dir / "a"}, 10);
  std::vector<int64_t> tokens(1000, 1);
  file.copy(kTokens - 1000, tokens);
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  CHECK(file.tokens() == kTokens);
  CHECK(tokens == std::vector<int64_t>(1000, 0));
  CHECK(seconds < 1);
}

}  // namespace
}  // namespace tptrain::formats
