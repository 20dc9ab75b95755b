#include "data/token_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/work.h"
#include "data/preparing.h"
#include "formats/token_file.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

namespace fs = std::filesystem;
using testing::contents_of;
using testing::has;
using testing::message_of;
using testing::TempDir;

Corpus corpus(const fs::path& path) { return {.sources = {{.path = path.string()}}}; }

PreparedTokens prepare(const fs::path& text, const fs::path& directory,
                       const std::string& split = "train") {
  return prepare_tokens(corpus(text), *tokenizer::make_tokenizer("bytes"), directory, split);
}

std::vector<int32_t> tokens_of(const PreparedTokens& prepared) {
  const formats::TokenFile file(prepared.path);
  std::vector<int64_t> wide(static_cast<size_t>(file.tokens()));
  file.copy(0, wide);
  return {wide.begin(), wide.end()};
}

std::string bin(const PreparedTokens& prepared) { return prepared.path.string() + ".bin"; }
std::string idx(const PreparedTokens& prepared) { return prepared.path.string() + ".idx"; }
ino_t inode(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

/// Two bytes a token: encodes files whole, and depends on what stands beside a letter, so pieces
/// would encode otherwise.
class PairTokenizer final : public tokenizer::Tokenizer {
 public:
  int64_t vocab_size() const override { return 70000; }
  int32_t end_of_text() const override { return 69999; }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size(); i += 2) {
      const int high = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
      ids.push_back(static_cast<unsigned char>(text[i]) + 256 * high);
    }
    return ids;
  }
  std::string decode(const std::vector<int32_t>&, const tokenizer::DecodeOptions&) const override {
    return "";
  }
  std::string token(int32_t) const override { return ""; }
  int32_t find(std::string_view) const override { return -1; }
  std::string hash() const override { return "pairs"; }
};

TEST_CASE("each file is a document closed by end of text; as format text, any bytes are text") {
  const TempDir dir;
  dir.put("text/a", "hi\n");
  dir.put("text/b", "");  // no document
  dir.put("text/c", std::string("\0\xff\xe6\x97\xa5", 5));
  Corpus as_text = corpus(dir / "text");
  as_text.format = config::DataFormat::text;
  const PreparedTokens prepared =
      prepare_tokens(as_text, *tokenizer::make_tokenizer("bytes"), dir / "tokens", "train");
  CHECK(tokens_of(prepared) ==
        std::vector<int32_t>{'h', 'i', '\n', 256, 0, 0xff, 0xe6, 0x97, 0xa5, 256});
  CHECK(prepared.tokens == 10);
  CHECK(prepared.documents == 2);
  CHECK(formats::TokenFile(prepared.path).header().document_ends == std::vector<int64_t>{4, 10});
  CHECK(prepared.path == dir / ("tokens/train-" + prepared.identity));
  CHECK(prepared.identity.size() == 64);
  CHECK_FALSE(prepared.reused);
  CHECK(prepared.rebuilt_because.empty());
}

TEST_CASE("a file larger than a piece is whole, whether the tokenizer takes pieces or not") {
  const TempDir dir;
  std::string text;
  for (int i = 0; text.size() < 2'500'001; ++i) text += std::to_string(i) + " ";
  dir.put("text", text);
  const auto bytes = tokenizer::make_tokenizer("bytes");
  std::vector<int32_t> expected = bytes->encode(text);
  expected.push_back(256);
  CHECK(tokens_of(prepare(dir / "text", dir / "tokens")) == expected);

  const PairTokenizer pairs;
  expected = pairs.encode(text, {});
  expected.push_back(69999);
  CHECK(tokens_of(prepare_tokens(corpus(dir / "text"), pairs, dir / "tokens", "train")) ==
        expected);
}

TEST_CASE("a second call reuses the files and writes nothing") {
  const TempDir dir;
  dir.put("text/a", "hello");
  const PreparedTokens first = prepare(dir / "text", dir / "tokens");
  const ino_t bin_inode = inode(bin(first));
  const ino_t idx_inode = inode(idx(first));
  const PreparedTokens second = prepare(dir / "text", dir / "tokens");
  CHECK(second.reused);
  CHECK(second.path == first.path);
  CHECK(second.identity == first.identity);
  CHECK(second.tokens == first.tokens);
  CHECK(second.documents == first.documents);
  CHECK(inode(bin(first)) == bin_inode);
  CHECK(inode(idx(first)) == idx_inode);
}

TEST_CASE("identity: contents, their order and the tokenizer; not the folder, names or times") {
  const TempDir dir;
  dir.put("one/a", "first");
  dir.put("one/b", "second");
  dir.put("two/x", "first");
  dir.put("two/y", "second");
  dir.put("swapped/a", "second");
  dir.put("swapped/b", "first");
  dir.put("joined/a", "firstsecond");
  const std::string identity = prepare(dir / "one", dir / "tokens").identity;
  CHECK(prepare(dir / "two", dir / "tokens").identity == identity);
  CHECK(prepare(dir / "two", dir / "tokens").reused);
  CHECK(prepare(dir / "swapped", dir / "tokens").identity != identity);
  CHECK(prepare(dir / "joined", dir / "tokens").identity != identity);
  CHECK(prepare_tokens(corpus(dir / "one"), PairTokenizer(), dir / "tokens", "train").identity !=
        identity);
  dir.put("one/b", "seconD");
  const PreparedTokens changed = prepare(dir / "one", dir / "tokens");
  CHECK(changed.identity != identity);
  CHECK_FALSE(changed.reused);
}

TEST_CASE("two splits stand side by side") {
  const TempDir dir;
  dir.put("a", "train text");
  dir.put("b", "eval text");
  const PreparedTokens train = prepare(dir / "a", dir / "tokens");
  const PreparedTokens eval = prepare(dir / "b", dir / "tokens", "eval");
  CHECK(train.path != eval.path);
  CHECK(eval.split == "eval");
  CHECK(tokens_of(train).size() == 11);
  CHECK(tokens_of(eval).size() == 10);
  CHECK(prepare(dir / "a", dir / "tokens", "eval").path != train.path);  // same text, other split
}

TEST_CASE("a damaged token file is made anew, and the reason is told") {
  const TempDir dir;
  dir.put("text", "hello world");
  const PreparedTokens first = prepare(dir / "text", dir / "tokens");
  const std::string good_bin = contents_of(bin(first));
  const std::string good_idx = contents_of(idx(first));
  struct Damage {
    std::string file;
    std::string contents;
    std::string reason;
  };
  std::string flipped = good_bin;
  flipped[2] = 'j';
  for (const Damage& damage : {Damage{bin(first), flipped, "SHA-256 is"},
                               Damage{bin(first), good_bin.substr(0, 4), "the file has 4 bytes"},
                               Damage{idx(first), good_idx.substr(0, 50), "the file has 50 bytes"},
                               Damage{idx(first), "", "does not begin with TPTOKIDX"}}) {
    std::ofstream(damage.file, std::ios::binary | std::ios::trunc) << damage.contents;
    const PreparedTokens again = prepare(dir / "text", dir / "tokens");
    INFO(again.rebuilt_because);
    CHECK_FALSE(again.reused);
    CHECK(has(again.rebuilt_because, damage.reason));
    CHECK(contents_of(bin(first)) == good_bin);
    CHECK(contents_of(idx(first)) == good_idx);
  }
  // A .bin without an .idx was never committed.
  fs::remove(idx(first));
  CHECK_FALSE(prepare(dir / "text", dir / "tokens").reused);
  fs::remove(bin(first));
  CHECK(has(prepare(dir / "text", dir / "tokens").rebuilt_because, "open failed"));
  CHECK(prepare(dir / "text", dir / "tokens").reused);
}

TEST_CASE("a valid token file of other text under this name is not taken") {
  const TempDir dir;
  dir.put("one", "one");
  dir.put("two", "other");
  const PreparedTokens one = prepare(dir / "one", dir / "tokens");
  const PreparedTokens two = prepare(dir / "two", dir / "tokens");
  fs::copy_file(bin(two), bin(one), fs::copy_options::overwrite_existing);
  fs::copy_file(idx(two), idx(one), fs::copy_options::overwrite_existing);
  const PreparedTokens again = prepare(dir / "one", dir / "tokens");
  CHECK(again.rebuilt_because ==
        "the file was made from other text, by another tokenizer or for another vocabulary size");
  CHECK(tokens_of(again) == std::vector<int32_t>{'o', 'n', 'e', 256});
}

TEST_CASE("what a killed call left is removed, what another process is writing is not") {
  const TempDir dir;
  dir.put("text", "x");
  dir.put("tokens/train-00.bin.tmp-1", "partial");
  dir.put("tokens/.train-00.idx.tmp-1", "partial");
  dir.put("tokens/eval-00.bin.tmp-1", "of one that is still at it");
  dir.put("tokens/eval-00.bin", "whole");
  {
    const PreparingLock held(dir / "tokens/eval-00");
    prepare(dir / "text", dir / "tokens");
    CHECK(fs::exists(dir / "tokens/eval-00.bin.tmp-1"));
  }
  remove_abandoned(dir / "tokens");
  CHECK_FALSE(fs::exists(dir / "tokens/train-00.bin.tmp-1"));
  CHECK_FALSE(fs::exists(dir / "tokens/.train-00.idx.tmp-1"));
  CHECK_FALSE(fs::exists(dir / "tokens/eval-00.bin.tmp-1"));
  CHECK(fs::exists(dir / "tokens/eval-00.bin"));
  for (const auto& entry : fs::directory_iterator(dir / "tokens"))
    CHECK(entry.path().extension() != ".lock");
}

TEST_CASE("whoever waits for another's preparation sees its progress") {
  const TempDir dir;
  dir.put("tokens/train-00.bin.tmp-1", std::string(1000, 'x'));
  std::optional<PreparingLock> held(dir / "tokens/train-00");
  std::jthread waiting([&] { const PreparingLock second(dir / "tokens/train-00"); });
  int64_t seen = 0;
  for (int tries = 0; tries < 15000 && seen < 1000; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (const auto work = current_work()) seen = work->done;
  }
  held.reset();
  CHECK(seen == 1000);
}

TEST_CASE("of several that prepare the same text in one directory one tokenizes") {
  const TempDir dir;
  dir.put("text", std::string(size_t{4} << 20, 'x'));
  std::vector<PreparedTokens> made(4);
  {
    std::vector<std::jthread> runs;
    for (PreparedTokens& one : made)
      runs.emplace_back([&] { one = prepare(dir / "text", dir / "tokens"); });
  }
  const auto reused = [](const PreparedTokens& one) { return one.reused; };
  CHECK(std::count_if(made.begin(), made.end(), reused) == 3);
  for (const PreparedTokens& one : made) {
    CHECK(one.identity == made.front().identity);
    CHECK(one.tokens == (int64_t{4} << 20) + 1);
    CHECK(one.rebuilt_because.empty());
  }
}

TEST_CASE("text that is not there or cannot be read is an error with its place") {
  const TempDir dir;
  const std::string empty = dir.put("empty/a", "").string();
  CHECK(message_of<DataError>([&] { prepare(dir / "empty", dir / "tokens", "eval"); }) ==
        "data error: data.eval: all 1 file(s) are empty, the first is " + empty +
            ": it must hold text.\n  Name files with text.");
  CHECK(has(message_of<DataError>([&] { prepare(dir / "none*", dir / "tokens", "eval"); }),
            "data.eval[0]: \"" + (dir / "none*").string() + "\" matches no file"));
  // Reading the first page of a process's memory fails for root, too, who may read any file.
  fs::create_symlink("/proc/self/mem", dir / "unreadable");
  CHECK(message_of<DataError>([&] { prepare(dir / "unreadable", dir / "tokens"); }) ==
        "data error: " + (dir / "unreadable").string() +
            ": read failed: Input/output error.\n"
            "  Every file that the data sources name is read: make it readable, or name the others "
            "one "
            "by one.");
  CHECK_FALSE(fs::exists(dir / "tokens"));
  const std::string file = dir.put("file", "x").string();
  CHECK(has(message_of<DataError>([&] { prepare(file, file); }), "mkdir failed: Not a directory"));
}

/// Appends to the file while it is read, once, as a program that still writes it does.
class DisturbingTokenizer final : public tokenizer::Tokenizer {
 public:
  explicit DisturbingTokenizer(fs::path path) : path_(std::move(path)) {}
  int64_t vocab_size() const override { return 257; }
  int32_t end_of_text() const override { return 256; }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions&) const override {
    if (!done_.exchange(true)) std::ofstream(path_, std::ios::app) << "more";
    return std::vector<int32_t>(text.size(), 1);
  }
  std::string decode(const std::vector<int32_t>&, const tokenizer::DecodeOptions&) const override {
    return "";
  }
  std::string token(int32_t) const override { return ""; }
  int32_t find(std::string_view) const override { return -1; }
  std::string hash() const override { return "disturbing"; }
  bool encodes_piecewise() const override { return true; }

 private:
  fs::path path_;
  mutable std::atomic<bool> done_ = false;  // several threads encode
};

TEST_CASE("a file that changes while it is read is an error, and leaves no token file") {
  const TempDir dir;
  // So large that its first part is encoded before the rest is read.
  const fs::path text = dir.put("text", std::string(size_t{9} << 20, 'x'));
  CHECK(
      message_of<DataError>([&] {
        prepare_tokens(corpus(text), DisturbingTokenizer(text), dir / "tokens", "train");
      }) ==
      "data error: " + text.string() +
          ": the file changed while it was read: it must stay as it is until training has begun.\n"
          "  Start again when it is complete.");
  CHECK(fs::is_empty(dir / "tokens"));
}

TEST_CASE("files of the same size and time are taken as they were, where the user says so") {
  const TempDir dir;
  const fs::path text = dir.put("text", "some");
  const auto bytes = tokenizer::make_tokenizer("bytes");
  Corpus trusting = corpus(text);
  trusting.trust_times = true;
  const PreparedTokens first = prepare_tokens(trusting, *bytes, dir / "tokens", "train");
  const auto time = fs::last_write_time(text);
  std::ofstream(text) << "same";
  fs::last_write_time(text, time);
  CHECK(prepare_tokens(trusting, *bytes, dir / "tokens", "train").identity == first.identity);
  CHECK(prepare_tokens(corpus(text), *bytes, dir / "tokens", "train").identity != first.identity);
  // Another time is another reading.
  fs::last_write_time(text, time + std::chrono::seconds(1));
  const PreparedTokens same = prepare_tokens(trusting, *bytes, dir / "tokens", "train");
  CHECK(same.identity != first.identity);
  // So is another file in its place.
  const fs::path other = dir.put("other", "tame");
  fs::last_write_time(other, fs::last_write_time(text));
  fs::rename(other, text);
  CHECK(prepare_tokens(trusting, *bytes, dir / "tokens", "train").identity != same.identity);
  // What is no record of this program is no record.
  dir.put("tokens/known_files.json", "{\"a\": 1}");
  CHECK_FALSE(prepare_tokens(trusting, *bytes, dir / "tokens", "train").identity.empty());
}

TEST_CASE("token files that are known are not read again") {
  const TempDir dir;
  const auto bytes = tokenizer::make_tokenizer("bytes");
  Corpus trusting = corpus(dir.put("text", "some text"));
  trusting.trust_times = true;
  const PreparedTokens first = prepare_tokens(trusting, *bytes, dir / "tokens", "train");
  const fs::path bin = formats::token_bin_path(first.path);
  const auto time = fs::last_write_time(bin);
  std::fstream(bin, std::ios::in | std::ios::out).write("\1", 1);  // a byte that was a letter
  fs::last_write_time(bin, time);
  CHECK(prepare_tokens(trusting, *bytes, dir / "tokens", "train").reused);
  CHECK_FALSE(prepare_tokens(corpus(trusting.sources[0].path), *bytes, dir / "tokens", "train")
                  .rebuilt_because.empty());
}

TEST_CASE("what one rank has prepared reaches the others as it is, names of any bytes included") {
  const PreparedTokens prepared = {.path = "run/data/train-\xff\xfe",
                                   .identity = "0a1b",
                                   .tokens = int64_t{1} << 40,
                                   .documents = 3,
                                   .split = "train",
                                   .reused = true,
                                   .rebuilt_because = "it was damaged",
                                   .indexed = {"a/\x80", "b"},
                                   .vocab_size = 300,
                                   .read_as = "text (1 file)",
                                   .end_of_turn = 7,
                                   .notes = {"left out: \xc3", ""}};
  const PreparedTokens told = prepared_from_wire(to_wire(prepared));
  CHECK(told.path == prepared.path);
  CHECK(told.identity == prepared.identity);
  CHECK(told.tokens == prepared.tokens);
  CHECK(told.documents == prepared.documents);
  CHECK(told.split == prepared.split);
  CHECK(told.reused == prepared.reused);
  CHECK(told.rebuilt_because == prepared.rebuilt_because);
  CHECK(told.indexed == prepared.indexed);
  CHECK(told.vocab_size == prepared.vocab_size);
  CHECK(told.read_as == prepared.read_as);
  CHECK(told.end_of_turn == prepared.end_of_turn);
  CHECK(told.notes == prepared.notes);
  CHECK(prepared_from_wire(to_wire({})).end_of_turn == -1);
}

}  // namespace
}  // namespace tptrain::data
