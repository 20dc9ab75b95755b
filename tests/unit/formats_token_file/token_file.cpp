#include "formats/token_file.h"

#include <cstring>

#include "base/error.h"
#include "base/text.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::formats {
namespace {

namespace fs = std::filesystem;
using testing::contents_of;
using testing::has;
using testing::message_of;
using testing::TempDir;

const std::string kIdentity = sha256_hex("identity");

/// Documents {0, 1, 2} and {7, vocab_size - 1}.
TokenFileHeader write_small(const fs::path& stem, int64_t vocab_size) {
  TokenFileWriter writer(stem, vocab_size, kIdentity);
  writer.append(std::vector<int32_t>{0, 1});
  writer.append(std::vector<int32_t>{2});
  writer.end_document();
  writer.append(std::vector<int32_t>{7, static_cast<int32_t>(vocab_size - 1)});
  writer.end_document();
  return writer.commit();
}

std::vector<int64_t> all_tokens(const TokenFile& file) {
  std::vector<int64_t> tokens(static_cast<size_t>(file.tokens()));
  file.copy(0, tokens);
  return tokens;
}

/// The index with `edit` applied and the self-hash made right again: what only the checks behind
/// the hash can find.
template <typename Edit>
std::string forged(const std::string& index, Edit edit) {
  std::string body = index.substr(0, index.size() - 64);
  edit(body);
  return body + sha256_hex(body);
}

void set_u64(std::string& text, size_t offset, uint64_t value) {
  std::memcpy(text.data() + offset, &value, sizeof value);
}

TEST_CASE("tokens, document ends and header round trip, in 2 bytes up to a vocabulary of 65,536") {
  for (const int64_t vocab_size :
       {int64_t{257}, int64_t{65536}, int64_t{65537}, int64_t{1} << 31}) {
    const TempDir dir;
    const int bytes = vocab_size <= 65536 ? 2 : 4;
    const TokenFileHeader written = write_small(dir / "train.v1", vocab_size);
    const TokenFile file(dir / "train.v1");
    CHECK(all_tokens(file) == std::vector<int64_t>{0, 1, 2, 7, vocab_size - 1});
    CHECK(file.header().document_ends == std::vector<int64_t>{3, 5});
    CHECK(file.header().identity == kIdentity);
    CHECK(file.header().vocab_size == vocab_size);
    CHECK(file.header().bytes_per_token == bytes);
    CHECK(written.bin_sha256 == file.header().bin_sha256);
    CHECK(fs::file_size(dir / "train.v1.bin") == static_cast<uintmax_t>(5 * bytes));
    CHECK_NOTHROW(file.verify());
    std::vector<int64_t> two(2);
    file.copy(2, two);
    CHECK(two == std::vector<int64_t>{2, 7});
  }
}

TEST_CASE("labels stand beside the tokens, in 2 bytes while none is distinct from every token") {
  for (const int64_t vocab_size :
       {int64_t{257}, int64_t{65535}, int64_t{65536}, int64_t{1} << 31}) {
    const TempDir dir;
    const auto last = static_cast<int32_t>(vocab_size - 1);
    TokenFileWriter writer(dir / "t", vocab_size, kIdentity, Labels::stored);
    writer.append(std::vector<int32_t>{0, 1, last}, std::vector<int32_t>{kNoLabel, last, 2});
    writer.end_document();
    writer.append(std::vector<int32_t>{last, 5});  // without labels: each its own
    writer.end_document();
    writer.commit();
    const TokenFile file(dir / "t");
    CHECK(file.header().labelled);
    CHECK(file.header().bytes_per_token == (vocab_size <= 65535 ? 2 : 4));
    CHECK(all_tokens(file) == std::vector<int64_t>{0, 1, last, last, 5});
    std::vector<int64_t> labels(4);
    file.copy_labels(1, labels);
    CHECK(labels == std::vector<int64_t>{last, 2, last, 5});
    file.copy_labels(0, labels);
    CHECK(labels == std::vector<int64_t>{kNoLabel, last, 2, last});
    CHECK_NOTHROW(file.verify());
    CHECK(decode_token_index(contents_of(dir / "t.idx"), "t.idx").labelled);
  }
}

TEST_CASE("the labels of a file without labels are its tokens") {
  const TempDir dir;
  write_small(dir / "t", 257);
  const TokenFile file(dir / "t");
  CHECK_FALSE(file.header().labelled);
  std::vector<int64_t> labels(3);
  file.copy_labels(1, labels);
  CHECK(labels == std::vector<int64_t>{1, 2, 7});
}

TEST_CASE("labels that cannot be stored, or are damaged, are refused") {
  const TempDir dir;
  TokenFileWriter plain(dir / "p", 257, kIdentity);
  const std::vector<int32_t> tokens = {1, 2};
  CHECK(has(message_of<InternalError>([&] {
              plain.append(tokens, std::vector<int32_t>{1, 2});
            }),
            "2 labels for 2 tokens: it must be as many, and go into a file that stores labels"));
  TokenFileWriter writer(dir / "t", 257, kIdentity, Labels::stored);
  CHECK(has(message_of<InternalError>([&] { writer.append(tokens, std::vector<int32_t>{1}); }),
            "1 labels for 2 tokens"));
  CHECK(has(message_of<InternalError>([&] {
              writer.append(tokens, std::vector<int32_t>{1, -1});
            }),
            "token -1"));
  writer.append(tokens, std::vector<int32_t>{kNoLabel, 2});
  writer.end_document();
  writer.commit();
  std::string bin = contents_of(dir / "t.bin");
  REQUIRE(bin.size() == 8);
  dir.put("t.bin", bin.substr(0, 6));
  CHECK(has(message_of<DataError>([&] { TokenFile(dir / "t"); }),
            "it must have 8 bytes (2 tokens of 2 bytes, each with a label)"));
  bin[7] = 9;
  dir.put("t.bin", bin);
  const TokenFile file(dir / "t");
  std::vector<int64_t> out(2);
  CHECK_NOTHROW(file.copy(0, out));
  CHECK(has(message_of<DataError>([&] { file.copy_labels(0, out); }),
            "the label of token 1 is 2306: it must be below the vocabulary size, 257"));
}

TEST_CASE("tokens are stored little-endian") {
  const TempDir dir;
  TokenFileWriter writer(dir / "t", 65536, kIdentity);
  writer.append(std::vector<int32_t>{0x0102});
  writer.end_document();
  writer.commit();
  CHECK(contents_of(dir / "t.bin") == "\x02\x01");
}

TEST_CASE("nothing stands under the final names before commit, and nothing at all without it") {
  const TempDir dir;
  {
    TokenFileWriter writer(dir / "t", 257, kIdentity);
    writer.append(std::vector<int32_t>{1});
    writer.end_document();
    CHECK_FALSE(fs::exists(dir / "t.bin"));
    CHECK_FALSE(fs::exists(dir / "t.idx"));
  }
  CHECK(fs::is_empty(dir.path()));
}

TEST_CASE("a commit replaces what stood there") {
  const TempDir dir;
  dir.put("t.bin", "rubbish");
  dir.put("t.idx", "rubbish");
  write_small(dir / "t", 257);
  CHECK(all_tokens(TokenFile(dir / "t")).size() == 5);
}

TEST_CASE("what the writer cannot store is refused") {
  const TempDir dir;
  TokenFileWriter writer(dir / "t", 257, kIdentity);
  CHECK(has(message_of<InternalError>([&] { writer.append(std::vector<int32_t>{257}); }),
            "the tokenizer gave token 257: it must be below its vocabulary size, 257"));
  CHECK(
      has(message_of<InternalError>([&] { writer.append(std::vector<int32_t>{-1}); }), "token -1"));
  CHECK(
      has(message_of<InternalError>([&] { writer.end_document(); }), "a document without tokens"));
  writer.append(std::vector<int32_t>{1});
  CHECK(has(message_of<InternalError>([&] { writer.commit(); }), "not consistent"));  // not ended
  CHECK(has(message_of<InternalError>([&] { TokenFileWriter(dir / "u", 0, kIdentity); }),
            "vocab_size 0"));
  CHECK(has(message_of<InternalError>([&] { TokenFileWriter(dir / "u", 9, "short"); }),
            "identity \"short\""));
  CHECK(has(message_of<DataError>([&] { TokenFileWriter(dir / "no/u", 9, kIdentity); }),
            "open failed: No such file or directory"));
}

TEST_CASE("every single flipped byte of an index is found, and every truncation") {
  const TempDir dir;
  write_small(dir / "t", 257);
  const std::string index = contents_of(dir / "t.idx");
  REQUIRE_NOTHROW(decode_token_index(index, "t.idx"));
  for (size_t at = 0; at < index.size(); ++at) {
    std::string flipped = index;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    INFO("byte " << at);
    CHECK_THROWS_AS(decode_token_index(flipped, "t.idx"), DataError);
  }
  for (size_t size = 0; size < index.size(); ++size) {
    INFO("size " << size);
    CHECK_THROWS_AS(decode_token_index(index.substr(0, size), "t.idx"), DataError);
  }
  CHECK_THROWS_AS(decode_token_index(index + "x", "t.idx"), DataError);
}

TEST_CASE("a damaged index says what is wrong, also where its hash is right") {
  const TempDir dir;
  write_small(dir / "t", 257);
  const std::string index = contents_of(dir / "t.idx");
  const auto message = [](const std::string& bytes) {
    return message_of<DataError>([&] { decode_token_index(bytes, "d/t.idx"); });
  };
  CHECK(message("{\"json\": 1}") ==
        "data error: d/t.idx: the file does not begin with TPTOKIDX: it must be a token index.\n"
        "  The file is damaged or no token file: remove it (and the file beside it) and start "
        "again; it "
        "is made anew from the text.");
  CHECK(has(message(index.substr(0, 20)), "the file has 20 bytes: it must have at least 240"));
  CHECK(has(message(index.substr(0, index.size() - 1)), "says it lists 2 documents"));
  std::string flipped = index;
  flipped[49] = flipped[49] == '0' ? '1' : '0';
  CHECK(has(message(flipped), "the SHA-256 of the contents is not the one at the end"));

  CHECK(has(message(forged(index, [](std::string& t) { t[8] = 1; })),
            "the format version is 1: it must be 2"));
  CHECK(has(message(forged(index, [](std::string& t) { t[12] = 4; })),
            "bytes per token is 4: it must be 2 for a vocabulary of 257"));
  CHECK(has(message(forged(index, [](std::string& t) { set_u64(t, 24, ~uint64_t{0}); })),
            "documents: it must have 8 bytes for each"));
  CHECK(has(message(forged(index, [](std::string& t) { set_u64(t, 32, 0); })), "vocab_size is 0"));
  CHECK(has(message(forged(index, [](std::string& t) { set_u64(t, 16, 4); })),
            "document 1 ends at token 5, the one before at 3, and there are 4 tokens"));
  CHECK(has(message(forged(index, [](std::string& t) { set_u64(t, 16, 6); })),
            "the last document ends at token 5 of 6"));
  CHECK(has(message(forged(index, [](std::string& t) { set_u64(t, 184, 3); })),
            "rising document ends"));
  CHECK(has(message(forged(index, [](std::string& t) { t[48] = 'Z'; })), "two SHA-256 hashes"));
  CHECK(has(message(forged(index, [](std::string& t) { set_u64(t, 40, 2); })),
            "labels is 2: it must hold a vocabulary of 1 to 2^31 tokens, labels of 0 or 1"));
}

TEST_CASE("a .bin of another size is refused at once, other contents by verify") {
  const TempDir dir;
  write_small(dir / "t", 257);
  const std::string bin = contents_of(dir / "t.bin");
  dir.put("t.bin", bin.substr(0, 8));
  CHECK(has(message_of<DataError>([&] { TokenFile(dir / "t"); }),
            "t.bin: the file has 8 bytes: it must have 10 bytes (5 tokens of 2 bytes)"));
  dir.put("t.bin", bin + "xx");
  CHECK(has(message_of<DataError>([&] { TokenFile(dir / "t"); }), "the file has 12 bytes"));

  std::string changed = bin;
  changed[0] = 9;
  dir.put("t.bin", changed);
  CHECK(has(message_of<DataError>([&] { TokenFile(dir / "t").verify(); }),
            "t.bin: SHA-256 is " + sha256_hex(changed) + ": it must be " + sha256_hex(bin)));

  changed[3] = 9;  // token 1 becomes 2305
  dir.put("t.bin", changed);
  const TokenFile file(dir / "t");
  CHECK(has(message_of<DataError>([&] { all_tokens(file); }),
            "t.bin: token 1 is 2305: it must be below the vocabulary size, 257"));

  fs::remove(dir / "t.bin");
  CHECK(has(message_of<DataError>([&] { TokenFile(dir / "t"); }), "t.bin: open failed"));
  fs::remove(dir / "t.idx");
  CHECK(has(message_of<DataError>([&] { TokenFile(dir / "t"); }), "t.idx: open failed"));
}

TEST_CASE("a range outside the file is refused") {
  const TempDir dir;
  write_small(dir / "t", 257);
  const TokenFile file(dir / "t");
  std::vector<int64_t> out(3);
  CHECK(
      has(message_of<InternalError>([&] { file.copy(3, out); }), "3 tokens from 3 of 5 asked for"));
  CHECK_THROWS_AS(file.copy(-1, out), InternalError);
  CHECK_THROWS_AS(file.copy(INT64_MAX, out), InternalError);
}

}  // namespace
}  // namespace tptrain::formats
