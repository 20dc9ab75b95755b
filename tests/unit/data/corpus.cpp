// The formats of a corpus: which documents a token file holds, what is refused, and what the name
// of the token file depends on. The rows by themselves: jsonl_rows.cpp.
#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/files.h"
#include "data/packing.h"
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
using Ids = std::vector<int64_t>;

/// Works on characters as BPE does: a letter is an id, "<s>" begins each text, "<e>" in it is end
/// of text unless special tokens are text.
class LetterTokenizer final : public tokenizer::Tokenizer {
 public:
  explicit LetterTokenizer(int32_t end = 256, bool closes = false) : end_(end), closes_(closes) {}
  int64_t vocab_size() const override { return 258; }
  int32_t end_of_text() const override { return end_; }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions& options) const override {
    std::vector<int32_t> ids;
    if (options.add_special) ids.push_back(257);
    for (size_t i = 0; i < text.size(); ++i) {
      if (!options.special_as_text && text[i] == '<' && text.substr(i, 3) == "<e>") {
        ids.push_back(256);
        i += 2;
        continue;
      }
      ids.push_back(static_cast<unsigned char>(text[i]));
    }
    if (closes_ && options.add_special) ids.push_back(end_);
    return ids;
  }
  std::string decode(const std::vector<int32_t>&, const tokenizer::DecodeOptions&) const override {
    return "";
  }
  std::string token(int32_t) const override { return ""; }
  int32_t find(std::string_view) const override { return -1; }
  std::string hash() const override { return "letters"; }

 private:
  int32_t end_;
  bool closes_;
};

Corpus corpus(const fs::path& path, std::optional<config::DataFormat> format = {}) {
  return {.sources = {{.path = path.string()}}, .format = format};
}

struct Documents {
  bool labelled = false;
  std::vector<Ids> ids = {};
  std::vector<Ids> labels = {};
};

Documents documents_of(const PreparedTokens& prepared) {
  const formats::TokenFile file(prepared.path);
  CHECK(file.tokens() == prepared.tokens);
  CHECK(file.header().documents() == prepared.documents);
  Documents out{.labelled = file.header().labelled};
  for (int64_t document = 0; document < prepared.documents; ++document) {
    const TokenRange range = document_range(file.header(), document);
    Ids ids(static_cast<size_t>(range.end - range.begin));
    file.copy(range.begin, ids);
    out.ids.push_back(ids);
    file.copy_labels(range.begin, ids);
    out.labels.push_back(ids);
  }
  return out;
}

PreparedTokens prepare(const TempDir& dir, const Corpus& corpus,
                       const tokenizer::Tokenizer& tokenizer = LetterTokenizer()) {
  return prepare_tokens(corpus, tokenizer, dir / "tokens", "train");
}

std::string failure(const TempDir& dir, const Corpus& corpus) {
  return message_of<DataError>([&] { prepare(dir, corpus); });
}

TEST_CASE(
    "a line of text is a document with begin and end of text; blank and empty ones are none") {
  const TempDir dir;
  const fs::path file =
      dir.put("a.jsonl", "{\"text\": \"hi\"}\n\n{\"text\": \"\"}\n \r\n{\"text\": \"j\"}");
  const Documents documents = documents_of(prepare(dir, corpus(file)));
  CHECK(documents.ids == std::vector<Ids>{{257, 'h', 'i', 256}, {257, 'j', 256}});
  CHECK_FALSE(documents.labelled);
}

TEST_CASE("ids are taken as they are, up to the model's vocabulary") {
  const TempDir dir;
  const fs::path file = dir.put("a.jsonl",
                                "{\"input_ids\": [5, 299]}\n{\"input_ids\": []}\n"
                                "{\"input_ids\": [7]}\n");
  Corpus with_model = corpus(file);
  with_model.vocab_size = 300;
  CHECK(documents_of(prepare(dir, with_model)).ids == std::vector<Ids>{{5, 299}, {7}});
  CHECK(failure(dir, corpus(file)) ==
        "data error: " + file.string() +
            ":1: input_ids[1] is 299: it must be at least 0 and below the vocabulary's size, 258.\n"
            "  Were the rows made with another tokenizer? Make them with the model's.");
}

TEST_CASE("a text that gives an id for which the model has no row is refused where it stands") {
  const TempDir dir;
  const fs::path file = dir.put("a.txt", "hi");
  Corpus small = corpus(dir.put("b.jsonl", "\n{\"text\": \"hi\"}\n"));
  small.vocab_size = 257;  // the begin of text is 257
  CHECK(failure(dir, small) ==
        "data error: " + (dir / "b.jsonl").string() +
            ":2: the text gives the id 257 (): it must give ids below 257, the rows of the model.\n"
            "  Take the token out of the text, or use the tokenizer that belongs to the model.");
  Corpus text = corpus(file);
  text.vocab_size = 257;
  CHECK(has(failure(dir, text), file.string() + ": the text gives the id 257"));
  Corpus ids = corpus(dir.put("c.jsonl", "{\"input_ids\": [5, 257]}\n"));
  ids.vocab_size = 257;
  CHECK(has(failure(dir, ids), "input_ids[1] is 257: it must be at least 0 and below"));
}

TEST_CASE("labels are kept; what has none counts every token") {
  const TempDir dir;
  dir.put("d/a.txt", "x");
  dir.put("d/b.jsonl", "\n{\"input_ids\": [1, 2, 3], \"labels\": [-100, -100, 9]}\n");
  dir.put("d/c.jsonl", "{\"input_ids\": [4, 5]}\n");
  const Documents documents = documents_of(prepare(dir, corpus(dir / "d")));
  CHECK(documents.labelled);
  CHECK(documents.ids == std::vector<Ids>{{257, 'x', 256}, {1, 2, 3}, {4, 5}});
  CHECK(documents.labels == std::vector<Ids>{{257, 'x', 256}, {-100, -100, 9}, {4, 5}});
}

TEST_CASE("the format is that of the file's name and contents, or the one that is asked for") {
  const TempDir dir;
  const std::string row = "{\"text\": \"h\"}\n";
  dir.put("d/a.jsonl", row);
  dir.put("d/b.json", row);
  dir.put("d/c.NDJSON", row);
  dir.put("d/e.Json", "[ {\"text\":\n \"h\"} ,\r\n" + row + "]\n");
  const auto count = [&](std::optional<config::DataFormat> format) {
    return prepare(dir, corpus(dir / "d", format)).documents;
  };
  CHECK(count({}) == 5);
  CHECK(count(config::DataFormat::jsonl) == 5);
  CHECK(count(config::DataFormat::text) == 4);
}

TEST_CASE("end of text closes a document once, and not at all where the tokenizer has none") {
  const TempDir dir;
  const fs::path file = dir.put("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b<e>\"}\n");
  CHECK(documents_of(prepare(dir, corpus(file))).ids ==
        std::vector<Ids>{{257, 'a', 256}, {257, 'b', 256}});
  const TempDir closing;
  CHECK(documents_of(prepare(closing, corpus(file), LetterTokenizer(256, true))).ids ==
        std::vector<Ids>{{257, 'a', 256}, {257, 'b', 256, 256}});
  const TempDir endless;
  CHECK(documents_of(prepare(endless, corpus(file), LetterTokenizer(-1))).ids ==
        std::vector<Ids>{{257, 'a'}, {257, 'b', 256}});
}

TEST_CASE("special tokens in the text are text where that is asked for") {
  const TempDir dir;
  const fs::path file = dir.put("a.txt", "b<e>c");
  Corpus as_text = corpus(file);
  as_text.special_as_text = true;
  CHECK(documents_of(prepare(dir, corpus(file))).ids ==
        std::vector<Ids>{{257, 'b', 256, 'c', 256}});
  CHECK(documents_of(prepare(dir, as_text)).ids ==
        std::vector<Ids>{{257, 'b', '<', 'e', '>', 'c', 256}});
}

TEST_CASE("identity: format and special_as_text decide it besides contents and tokenizer") {
  const TempDir dir;
  const fs::path file = dir.put("a.jsonl", "{\"text\": \"a\"}\n");
  const fs::path copy = dir.put("elsewhere/b.jsonl", "{\"text\": \"a\"}\n");
  const std::string identity = prepare(dir, corpus(file)).identity;
  CHECK(prepare(dir, corpus(file, config::DataFormat::jsonl)).identity == identity);
  CHECK(prepare(dir, corpus(copy)).reused);
  CHECK(prepare(dir, corpus(file, config::DataFormat::text)).identity != identity);
  Corpus as_text = corpus(file);
  as_text.special_as_text = true;
  CHECK(prepare(dir, as_text).identity != identity);
  // What the columns are called decides which are read.
  const fs::path two = dir.put("two.jsonl", "{\"text\": \"a\", \"body\": \"b\"}\n");
  const PreparedTokens of_text = prepare(dir, corpus(two));
  Corpus by_key = corpus(two);
  by_key.names = RowNames({}, "body");
  Corpus by_column = corpus(two);
  by_column.names = RowNames(RowNames::Columns{{"text", "body"}});
  const PreparedTokens of_key = prepare(dir, by_key), of_column = prepare(dir, by_column);
  CHECK(of_key.identity != of_text.identity);
  CHECK(of_column.identity != of_text.identity);
  CHECK(documents_of(of_text).ids == std::vector<Ids>{{257, 'a', 256}});
  CHECK(documents_of(of_key).ids == std::vector<Ids>{{257, 'b', 256}});
  CHECK(documents_of(of_column).ids == std::vector<Ids>{{257, 'b', 256}});
  const auto bytes = tokenizer::make_tokenizer("bytes");
  const auto identity_with = [&](const RowNames::Columns& columns) {
    Corpus named = corpus(two);
    named.names = RowNames(columns);
    return prepare_tokens(named, *bytes, dir / "tokens", "train").identity;
  };
  CHECK(identity_with({{"prompt", "text"}, {"completion", "body"}}) !=
        identity_with({{"prompt", "body"}, {"completion", "text"}}));
  // Another vocabulary's size may be stored otherwise: not another identity, but made anew.
  Corpus larger = corpus(file);
  larger.vocab_size = 70'000;
  CHECK(prepare(dir, larger).identity == identity);
  CHECK(has(prepare(dir, corpus(file)).rebuilt_because, "for another vocabulary size"));
}

TEST_CASE("many documents come out in order, whatever the number of threads") {
  const TempDir dir;
  std::string rows;
  std::vector<Ids> expected;
  for (int i = 0; i < 200; ++i) {
    const std::string text(static_cast<size_t>(100'000 + i), static_cast<char>('a' + i % 26));
    rows += "{\"text\": \"" + text + "\"}\n";  // 20 MB: two rounds of tokenizing
    expected.push_back({257});
    expected.back().insert(expected.back().end(), text.begin(), text.end());
    expected.back().push_back(256);
  }
  Corpus many = corpus(dir.put("a.jsonl", rows));
  for (const int threads : {1, 3}) {
    many.threads = threads;
    fs::remove_all(dir / "tokens");
    const bool same = documents_of(prepare(dir, many)).ids == expected;
    CHECK(same);
  }
}

TEST_CASE("what a corpus cannot hold is refused with its place, and leaves no token file") {
  const TempDir dir;
  const auto message = [&](const std::string& name, const std::string& contents) {
    return failure(dir, corpus(dir.put(name, contents)));
  };
  CHECK(message("a.jsonl", "{\"text\": \"a\"}\n\n{\"input_ids\": [1]}\n") ==
        "data error: " + (dir / "a.jsonl").string() +
            ":3: the row is input_ids, that of line 1 is text: it must be of the same kind as all "
            "rows of its file.\n"
            "  Put rows of different kinds into different files; a row of which every token counts "
            "has its input_ids as labels.");
  CHECK(has(message("a.jsonl", "{\"input_ids\": [1], \"labels\": [1]}\n{\"input_ids\": [1]}"),
            "a.jsonl:2: the row is input_ids, that of line 1 is input_ids with labels"));
  CHECK(has(message("a.jsonl", "{\"text\": \"a\"}\nplain\n"), "a.jsonl:2: the line is not JSON"));
  CHECK(has(message("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"" +
                                   std::string(size_t{33} << 20, 'x') + "\"}\n"),
            "a.jsonl:2: the line is longer than 32.00 MiB"));
  CHECK(message("b.txt",
                "good\nb\xff"
                "d\n") ==
        "data error: " + (dir / "b.txt").string() +
            ":2: the line is not UTF-8: it must be UTF-8: this tokenizer works on characters.\n"
            "  Convert the file, for example with iconv -t utf-8.");
  CHECK(has(message("b.txt", "\xc3"), "b.txt:1: the line is not UTF-8"));
  CHECK(has(
      message("c.jsonl", "\n{\"text\": \"\"}\n"),
      "data.train: all rows of 1 file(s) are empty, the first is " + (dir / "c.jsonl").string()));
  CHECK(fs::is_empty(dir / "tokens"));
}

TEST_CASE("the key of the text is chosen, and another key of that name is none") {
  const TempDir dir;
  Corpus chosen = corpus(dir.put("a.json", "{\"content\": \"a\", \"text\": 7}\n"));
  chosen.names = RowNames({}, "content");
  const PreparedTokens prepared = prepare(dir, chosen);
  CHECK(documents_of(prepared).ids == std::vector<Ids>{{257, 'a', 256}});
  CHECK(has(failure(dir, corpus(dir.put("b.jsonl", "{\"content\": \"a\"}\n"))),
            "b.jsonl:1: there is neither \"text\" nor \"input_ids\""));
  chosen.sources[0].path = dir.put("b.jsonl", "{\"text\": \"a\"}\n").string();
  CHECK(has(
      failure(dir, chosen),
      "b.jsonl:1: there is neither \"content\" nor \"input_ids\", but \"text\": it must be one"));
}

TEST_CASE(
    "malformed rows are left out and counted up to a share of the rows, and refused above it") {
  const TempDir dir;
  const std::string too_long = "{\"text\": \"" + std::string(size_t{33} << 20, 'x') + "\"}";
  const std::string good = "{\"text\": \"a\"}\n";
  Corpus rows =
      corpus(dir.put("a.jsonl", "no json\n" + good + "{\"input_ids\": [1]}\n\n" + too_long + "\n" +
                                    good + "{\"text\": \"\xff\"}\n" + good + "{\"text\": \"torn"));
  CHECK(has(failure(dir, rows), "a.jsonl:1: the line is not JSON"));
  rows.max_bad_fraction = 0.625;
  const PreparedTokens prepared = prepare(dir, rows);
  CHECK(documents_of(prepared).ids == std::vector<Ids>(3, {257, 'a', 256}));
  REQUIRE(prepared.notes.size() == 1);
  const std::string& note = prepared.notes[0];
  const std::string file = (dir / "a.jsonl").string();
  CHECK(has(note, "5 of 8 rows are malformed and left out, the first: " + file +
                      ":1: the line is not JSON"));
  CHECK(has(note,
            "; " + file +
                ":3: the row is input_ids, that of line 2 is text: it must be of the same kind"));
  CHECK(has(note, "; " + file + ":5: the line is longer than 32.00 MiB"));
  CHECK_FALSE(has(note, ":7:"));

  rows.max_bad_fraction = 0.6;
  const std::string message = failure(dir, rows);
  CHECK(has(message,
            "data error: data.train: 5 of 8 rows are malformed, the first: " + file + ":1: "));
  CHECK(has(message, "it must be at most 0.6 of them (data.max_bad_fraction)"));
}

TEST_CASE("in an array a malformed row is left out, one that is not closed ends the file") {
  const TempDir dir;
  const std::string too_long = "{\"text\": \"" + std::string(size_t{33} << 20, 'x') + "\"}";
  Corpus rows =
      corpus(dir.put("a.json", "[{\"text\": \"a\"}, 7,\n" + too_long + ", {\"text\": \"b\"}]"));
  rows.max_bad_fraction = 0.5;
  const PreparedTokens prepared = prepare(dir, rows);
  CHECK(documents_of(prepared).ids == std::vector<Ids>{{257, 'a', 256}, {257, 'b', 256}});
  CHECK(has(prepared.notes.at(0), "a.json:1: the line is a number"));
  CHECK(has(prepared.notes.at(0), "a.json:2: the row is longer than 32.00 MiB"));
  rows.sources[0].path = dir.put("b.json", "[{\"text\": \"a\"}, {\"text\": \"b\"").string();
  CHECK(has(failure(dir, rows), "the file ends within the row that begins in line 1"));
}

TEST_CASE("a subset takes as many rows as it says, the same ones each time, in their order") {
  const TempDir dir;
  std::string rows;
  for (int i = 0; i < 200; ++i)
    rows += "{\"text\": \"" + std::string(1, static_cast<char>('a' + i % 26)) + std::to_string(i) +
            "\"}\n\n";
  Corpus part = corpus(dir.put("a.jsonl", rows));
  const std::vector<Ids> all = documents_of(prepare(dir, part)).ids;
  const auto taken = [&](const config::Share& subset) {
    part.subset = subset;
    return documents_of(prepare(dir, part)).ids;
  };
  const std::vector<Ids> ten = taken({.count = 10});
  CHECK(ten.size() == 10);
  CHECK(taken({.fraction = 0.05}) == ten);
  const std::vector<Ids> half = taken({.fraction = 0.5});
  CHECK(half.size() == 100);
  // In the order of the file, and the smaller within the larger.
  size_t at = 0;
  for (const Ids& document : half) {
    while (at < all.size() && all[at] != document) ++at;
  }
  CHECK(at < all.size());
  for (const Ids& document : ten)
    CHECK(std::find(half.begin(), half.end(), document) != half.end());
  part.subset = config::Share{.count = 1000};
  const PreparedTokens whole = prepare(dir, part);
  CHECK(whole.documents == 200);
  CHECK(whole.notes.at(0) ==
        "a subset of 1,000 rows is asked for, and there are 200: all are taken");
  part.subset.reset();
  CHECK(prepare(dir, part).identity != whole.identity);
}

TEST_CASE("token files of Megatron are read where they lie, by any of their names or in a folder") {
  const TempDir dir;
  const fs::path rows = dir.put("a.jsonl", "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [4]}\n");
  fs::create_directories(dir / "indexed");
  write_indexed(formats::TokenFile(prepare(dir, corpus(rows)).path), dir / "indexed/x");
  dir.put("indexed/README.md", "what it is");
  const std::vector<Ids> expected = {{1, 2, 3}, {4}};
  std::string identity;
  for (const char* name : {"indexed", "indexed/x.bin", "indexed/x.idx", "indexed/x.*"}) {
    const PreparedTokens prepared = prepare(dir, corpus(dir / name));
    CHECK(prepared.indexed == std::vector<fs::path>{dir / "indexed/x"});
    CHECK(prepared.documents == 2);
    const formats::TokenFile file = open_tokens(prepared);
    Ids ids(4);
    file.copy(0, ids);
    CHECK(ids == Ids{1, 2, 3, 4});
    CHECK((identity.empty() || prepared.identity == identity));
    identity = prepared.identity;
  }
  CHECK(prepare(dir, corpus(dir / "indexed")).notes.at(0) ==
        "of the directory " + (dir / "indexed").string() + " these are left out: " +
            (dir / "indexed/README.md").string() + " (beside token files)");
  Corpus both = corpus(dir / "indexed/x.bin");
  both.sources.push_back({.path = rows.string()});
  CHECK(has(failure(dir, both),
            "a.jsonl is text or rows, and there are token files: it must be one or"));
  Corpus part = corpus(dir / "indexed/x.bin");
  part.subset = config::Share{.count = 1};
  CHECK(has(message_of<ConfigError>([&] { prepare(dir, part); }),
            "a subset of Megatron token files"));
  CHECK(has(failure(dir, corpus(rows, config::DataFormat::indexed)),
            "no index of a Megatron token file"));
  fs::remove(dir / "indexed/x.bin");
  CHECK(has(failure(dir, corpus(dir / "indexed/x.idx")), "x.bin"));
}

TEST_CASE("messages name the sources as the caller does") {
  const TempDir dir;
  Corpus named = corpus(dir / "none*");
  named.key = "--data";
  CHECK(has(failure(dir, named), "--data[0]: \""));
}

TEST_CASE("what files were read as is said, with how many of each") {
  const TempDir dir;
  dir.put("rows/a.jsonl", "{\"text\": \"a\"}\n");
  dir.put("rows/b.jsonl", "{\"input_ids\": [1], \"labels\": [1]}\n");
  dir.put("rows/c.jsonl", "{\"text\": \"c\"}\n");
  dir.put("rows/d.txt", "d");
  CHECK(prepare(dir, corpus(dir / "rows")).read_as ==
        "rows, each input_ids with labels (1 file); rows, each text (2 files); text (1 file)");
}

/// Letters that may be cut behind line ends, or before spaces: then a text gets a space of its own.
class LineTokenizer final : public tokenizer::Tokenizer {
 public:
  enum class Cuts { none, lines, spaces };
  explicit LineTokenizer(Cuts cuts, bool spaced = false) : cuts_(cuts), spaced_(spaced) {}
  int64_t vocab_size() const override { return letters_.vocab_size(); }
  int32_t end_of_text() const override { return letters_.end_of_text(); }
  std::vector<int32_t> encode(std::string_view text,
                              const tokenizer::EncodeOptions& options) const override {
    longest_ = std::max(longest_.load(), text.size());
    return letters_.encode(spaced_ ? " " + std::string(text) : std::string(text), options);
  }
  std::string decode(const std::vector<int32_t>&, const tokenizer::DecodeOptions&) const override {
    return "";
  }
  std::string token(int32_t) const override { return ""; }
  int32_t find(std::string_view) const override { return -1; }
  std::string hash() const override { return spaced_ ? "spaced" : "lines"; }
  size_t last_cut(std::string_view text) const override {
    if (cuts_ == Cuts::none) return 0;
    const size_t found = text.rfind(cuts_ == Cuts::lines ? '\n' : ' ');
    return found == text.npos ? 0 : cuts_ == Cuts::lines ? found + 1 : found;
  }
  size_t skipped_behind_cut() const override { return spaced_ ? 1 : 0; }
  size_t longest() const { return longest_; }

 private:
  LetterTokenizer letters_;
  Cuts cuts_;
  bool spaced_;
  mutable std::atomic<size_t> longest_ = 0;
};

TEST_CASE("a large text in parts is the document that it is whole, by any number of threads") {
  const TempDir dir;
  std::string text;
  while (text.size() < (size_t{5} << 20)) text += "line " + std::to_string(text.size()) + "\n";
  text += "no line end, and a long rest " + std::string(300000, 'x');
  const fs::path file = dir.put("a.txt", text);
  using Cuts = LineTokenizer::Cuts;
  const LineTokenizer whole(Cuts::none), lines(Cuts::lines);
  const LineTokenizer spaced(Cuts::none, true), spaces(Cuts::spaces, true);
  Corpus by_one = corpus(file);
  by_one.threads = 1;
  Corpus by_three = by_one;
  by_three.threads = 3;
  const auto hash = [&](const Corpus& of, const tokenizer::Tokenizer& tokenizer,
                        const std::string& folder, int64_t more = 2) {
    const PreparedTokens prepared = prepare_tokens(of, tokenizer, dir / folder, "train");
    CHECK(prepared.documents == 1);
    CHECK(prepared.tokens == static_cast<int64_t>(text.size()) + more);
    return formats::TokenFile(prepared.path).header().bin_sha256;
  };
  const std::string expected = hash(by_one, whole, "whole");
  CHECK(whole.longest() == text.size());
  CHECK(hash(by_one, lines, "one") == expected);
  CHECK(hash(by_three, lines, "three") == expected);
  CHECK(lines.longest() < (size_t{1} << 20));
  // One space stands before the text, none before its parts.
  const std::string expected_spaced = hash(by_one, spaced, "spaced", 3);
  CHECK(hash(by_one, spaces, "spaces one", 3) == expected_spaced);
  CHECK(hash(by_three, spaces, "spaces three", 3) == expected_spaced);
  CHECK(spaces.longest() < (size_t{1} << 20));
  // A line that is no UTF-8 is found in any part.
  text.insert(text.find("line 9"), "\xff");
  const auto line =
      std::count(text.begin(), text.begin() + static_cast<int64_t>(text.find('\xff')), '\n') + 1;
  CHECK(has(message_of<DataError>([&] { prepare(dir, corpus(dir.put("b.txt", text)), lines); }),
            "b.txt:" + std::to_string(line) + ": the line is not UTF-8"));
}

}  // namespace
}  // namespace tptrain::data
