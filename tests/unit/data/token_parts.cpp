// A corpus that is tokenized in parts: the same token file whole or after interruptions, and what
// is done is not done again.
#include <atomic>
#include <fstream>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "data/packing.h"
#include "data/targetless.h"
#include "data/token_output.h"
#include "data/token_store.h"
#include "formats/indexed_tokens.h"
#include "formats/token_file.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

namespace fs = std::filesystem;
using testing::has;
using testing::message_of;
using testing::TempDir;

struct Killed {};

/// Letters, that may be cut behind line ends; gives up after some calls.
class MortalTokenizer final : public tokenizer::Tokenizer {
 public:
  int64_t vocab_size() const override { return 257; }
  int32_t end_of_text() const override { return 256; }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions&) const override {
    bytes_ += static_cast<int64_t>(text.size());
    if (bytes_left_ >= 0 && (bytes_left_ -= static_cast<int64_t>(text.size())) < 0) {
      bytes_left_ = 0;
      throw Killed();
    }
    return {text.begin(), text.end()};
  }
  std::string decode(const std::vector<int32_t>&, const tokenizer::DecodeOptions&) const override {
    return "";
  }
  std::string token(int32_t id) const override { return {static_cast<char>(id)}; }
  int32_t find(std::string_view) const override { return -1; }
  std::string hash() const override { return "mortal"; }
  size_t last_cut(std::string_view text) const override {
    const size_t end = text.rfind('\n');
    return end == std::string_view::npos ? 0 : end + 1;
  }

  void live_for(int64_t bytes) { bytes_left_ = bytes; }
  int64_t bytes() const { return bytes_; }

 private:
  mutable std::atomic<int64_t> bytes_left_ = -1;
  mutable std::atomic<int64_t> bytes_ = 0;
};

/// Rows of every layout with malformed and blank ones among them, and two texts, of which one is
/// large enough to be cut.
void write_corpus(const TempDir& dir) {
  std::string lines, array = "[", text;
  for (int i = 0; i < 3000; ++i) {
    const std::string row = "{\"text\": \"row " + std::to_string(i * i) + "\"}";
    lines += i % 700 == 5 ? "no row\n" : row + (i % 300 == 7 ? "\n\n" : "\n");
    array += (i > 0 ? ",\n" : "") + row;
  }
  while (text.size() < (size_t{9} << 20)) text += "line " + std::to_string(text.size()) + "\n";
  dir.put("text/a.jsonl", lines);
  dir.put("text/b.json", array + "]");
  dir.put("text/c.txt", text);
  dir.put("text/d.txt", "a small one");
  dir.put("text/e.jsonl", lines);
}

Corpus corpus_of(const TempDir& dir, int64_t part_bytes) {
  return {.sources = {{.path = (dir / "text").string()}},
          .subset = config::Share{.fraction = 0.9},
          .max_bad_fraction = 0.5,
          .threads = 1,
          .part_bytes = part_bytes};
}

TEST_CASE("an interrupted preparation goes on, to the same bytes, and little is done twice") {
  const TempDir dir;
  write_corpus(dir);
  MortalTokenizer whole;
  const PreparedTokens expected =
      prepare_tokens(corpus_of(dir, int64_t{1} << 40), whole, dir / "whole", "train");
  const formats::TokenFile reference(expected.path);
  CHECK(expected.documents > 8000);

  MortalTokenizer tokenizer;
  int interruptions = 0;
  while (true) {
    tokenizer.live_for(interruptions % 3 == 0 ? 400'000 : 5'000'000);
    try {
      const PreparedTokens prepared =
          prepare_tokens(corpus_of(dir, 30'000), tokenizer, dir / "parts", "train");
      const formats::TokenFile made(prepared.path);
      made.verify();
      CHECK(made.header().bin_sha256 == reference.header().bin_sha256);
      CHECK(made.header().document_ends == reference.header().document_ends);
      CHECK(prepared.identity == expected.identity);
      std::vector<std::string> notes = prepared.notes;
      std::erase_if(notes, [](const std::string& note) { return has(note, "interrupted run"); });
      CHECK(notes == expected.notes);
      CHECK(notes.size() < prepared.notes.size());
      break;
    } catch (const Killed&) {
      REQUIRE(++interruptions < 100);
    }
  }
  CHECK(interruptions >= 3);
  // What an interruption loses is a part and what waited to be tokenized, of 4 MiB at most.
  CHECK(tokenizer.bytes() < whole.bytes() + interruptions * 5'500'000);
  for (const fs::directory_entry& left : fs::directory_iterator(dir / "parts"))
    CHECK_FALSE(left.is_directory());
}

TEST_CASE("a part that is damaged, and all behind it, is made again") {
  const TempDir dir;
  const fs::path stem = dir / "train-x";
  const TokenOutput::Options options = {
      .stem = stem, .vocab_size = 100, .identity = sha256_hex("x"), .in_parts = true};
  const auto write = [&](TokenOutput& output, int32_t from) {
    for (int32_t part = from; part < 3; ++part) {
      output.append(std::vector<int32_t>{part, part, part});
      output.end_document();
      output.end_part({.file = static_cast<size_t>(part + 1)});
    }
  };
  {
    TokenOutput output(options);
    CHECK_FALSE(output.begin().has_value());
    write(output, 0);
  }
  {
    TokenOutput output(options);
    CHECK(output.tokens() == 9);
    CHECK(output.begin()->file == 3);
  }
  const fs::path parts = dir / ".train-x.parts";
  std::fstream(parts / "part-1.bin", std::ios::in | std::ios::out).write("\7", 1);
  {
    TokenOutput output(options);
    CHECK(output.tokens() == 3);
    CHECK(output.begin()->file == 1);
    write(output, 1);
    CHECK(output.commit().tokens == 9);
  }
  CHECK_FALSE(fs::exists(parts));
  std::vector<int64_t> all(9);
  formats::TokenFile(stem).copy(0, all);
  CHECK(all == std::vector<int64_t>{0, 0, 0, 1, 1, 1, 2, 2, 2});
  // Those of another corpus are none, and neither is a point that cannot be read.
  {
    TokenOutput output(options);
    write(output, 0);
  }
  TokenOutput::Options other = options;
  other.identity = sha256_hex("y");
  CHECK_FALSE(TokenOutput(other).begin().has_value());
  std::ofstream(parts / "part-0.json") << "{";
  CHECK_FALSE(TokenOutput(options).begin().has_value());
}

TEST_CASE("a document over several parts is one, with its labels") {
  const TempDir dir;
  const fs::path stem = dir / "train-x";
  TokenOutput output({.stem = stem,
                      .vocab_size = 100,
                      .identity = sha256_hex("x"),
                      .labels = formats::Labels::stored,
                      .in_parts = true});
  output.append(std::vector<int32_t>{1});
  output.end_document();
  output.append(std::vector<int32_t>{2, 3}, std::vector<int32_t>{2, -100});
  output.end_part({.in_document = true});
  output.append(std::vector<int32_t>{4}, std::vector<int32_t>{-100});
  output.end_part({.in_document = true});
  output.end_document();
  output.append(std::vector<int32_t>{5});
  output.end_document();
  const formats::TokenFileHeader header = output.commit();
  CHECK(header.document_ends == std::vector<int64_t>{1, 4, 5});
  std::vector<int64_t> labels(5);
  formats::TokenFile(stem).copy_labels(0, labels);
  CHECK(labels == std::vector<int64_t>{1, 2, -100, -100, 5});
}

/// The most memory that this process held while `work` ran, mapped files included, in bytes.
template <typename Work>
int64_t most_memory(const Work& work) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the mark begins anew
  work();
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  FAIL("/proc/self/status names no high-water mark");
  return 0;
}

// Each is a corpus that is kept in parts, of which the whole is one. What goes over a whole file
// must let go of it, or its pages count as memory. What a sanitizer keeps of freed memory counts as
// well.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("memory does not grow with the corpus") {
  const TempDir dir;
  MortalTokenizer tokenizer;
  const auto most_of = [&](const std::string& row, const std::string& ending, size_t megabytes) {
    const std::string name = std::to_string(megabytes) + ending;
    {
      std::ofstream file(dir / ("corpus-" + name));
      std::string block;
      while (block.size() < (size_t{1} << 20)) block += row;
      for (size_t i = 0; i < megabytes; ++i) file << block;
    }
    return most_memory([&] {
      const PreparedTokens made =
          prepare_tokens({.sources = {{.path = (dir / ("corpus-" + name)).string()}},
                          .threads = 1,
                          .part_bytes = static_cast<int64_t>(megabytes) << 20},
                         tokenizer, dir / "tokens", "train");
      CHECK(targetless_documents(made, Packing::stream, 128).count == 0);
      formats::write_indexed(open_tokens(made), dir / ("megatron-" + name));
    });
  };
  std::string ids;
  for (int i = 0; i < 400; ++i) ids += i > 0 ? ",97" : "97";
  for (const auto& [row, ending] : std::map<std::string, std::string>{
           {std::string(1000, 'a') + "\n", ".txt"},
           {"{\"input_ids\": [" + ids + "], \"labels\": [" + ids + "]}\n", ".jsonl"}}) {
    INFO(ending);
    const int64_t small = most_of(row, ending, 8), large = most_of(row, ending, 32);
    INFO(small << " and " << large << " bytes");
    CHECK(large - small < (int64_t{8} << 20));
  }
}
#endif

TEST_CASE("parts that nobody goes on with are removed in the end") {
  const TempDir dir;
  fs::create_directories(dir / ".train-old.parts");
  fs::create_directories(dir / ".train-new.parts");
  fs::last_write_time(dir / ".train-old.parts",
                      fs::file_time_type::clock::now() - std::chrono::hours(24 * 31));
  remove_old_parts(dir.path());
  CHECK_FALSE(fs::exists(dir / ".train-old.parts"));
  CHECK(fs::exists(dir / ".train-new.parts"));
}

}  // namespace
}  // namespace tptrain::data
