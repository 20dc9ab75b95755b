// Which documents are held out of a corpus: a share of them, by what they hold and nothing else.
#include "data/holdout.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "data/packing.h"
#include "data/token_store.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;
using Part = Holdout::Part;

/// The documents of a part, as text.
std::multiset<std::string> documents(const TempDir& dir, const std::string& path, Part part,
                                     double share = 0.1) {
  const auto bytes = tokenizer::make_tokenizer("bytes");
  const PreparedTokens prepared =
      prepare_tokens({.sources = {{.path = path}}, .holdout = {.share = share, .part = part}},
                     *bytes, dir / "tokens", part == Part::trained ? "train" : "eval_share");
  const formats::TokenFile file = open_tokens(prepared);
  std::multiset<std::string> texts;
  for (int64_t document = 0; document < prepared.documents; ++document) {
    const TokenRange range = document_range(file.header(), document);
    std::vector<int64_t> ids(static_cast<size_t>(range.end - range.begin));
    file.copy(range.begin, ids);
    texts.insert(bytes->decode({ids.begin(), ids.end()}, {}));
  }
  return texts;
}

std::string rows(int from, int to, const std::string& more = "") {
  std::string lines;
  for (int i = from; i < to; ++i) {
    lines += "{\"text\": \"row " + std::to_string(i) + "\"" + more + "}\n";
  }
  return lines;
}

TEST_CASE("each document is on one side, and about as many are held out as the share says") {
  const TempDir dir;
  const std::string path = dir.put("a.jsonl", rows(0, 5000)).string();
  const auto trained = documents(dir, path, Part::trained);
  const auto held_out = documents(dir, path, Part::held_out);
  CHECK(trained.size() + held_out.size() == 5000);
  for (const std::string& text : held_out) CHECK(trained.count(text) == 0);
  // Of a binomial distribution four standard deviations: 4 * sqrt(5000 * 0.1 * 0.9).
  CHECK(std::abs(static_cast<double>(held_out.size()) - 500) < 85);
  // A larger share holds the smaller one.
  for (const std::string& text : held_out)
    CHECK(documents(dir, path, Part::held_out, 0.3).count(text) == 1);
}

TEST_CASE("equal documents go together, in whatever file, place and company they stand") {
  const TempDir dir;
  const std::string one = dir.put("a.jsonl", rows(0, 600)).string();
  const auto alone = documents(dir, one, Part::held_out);
  dir.put("more/a.jsonl", rows(300, 600, ", \"id\": 7") + rows(0, 300));
  dir.put("more/b.jsonl", rows(200, 800));
  const auto together = documents(dir, (dir / "more").string(), Part::held_out);
  for (const std::string& text : alone) {
    const int number = std::stoi(text.substr(4));
    CHECK(together.count(text) == (number >= 200 ? 2 : 1));
  }
  const auto trained = documents(dir, (dir / "more").string(), Part::trained);
  for (const std::string& text : together) CHECK(trained.count(text) == 0);
}

TEST_CASE("every kind of row has what it holds in its hash") {
  const auto content = [](const std::string& line) {
    JsonlParser parser(1000);
    return Holdout::content_of(parser.parse(line, "f", 1).value());
  };
  const std::vector<std::string> lines = {
      R"({"text": "a"})",
      R"({"input_ids": [1, 2]})",
      R"({"input_ids": [1, 2], "labels": [-100, 2]})",
      R"({"prompt": "a", "completion": "b"})",
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})",
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]})",
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}], "tools": [{"name": "f"}]})"};
  std::set<std::string> contents;
  for (const std::string& line : lines) contents.insert(content(line));
  CHECK(contents.size() == lines.size());
  CHECK(content(R"({"id": 1, "text": "a"})") == content(lines[0]));
}

TEST_CASE("a share that leaves a side without documents is refused") {
  const TempDir dir;
  const std::string path = dir.put("a.txt", "one document").string();
  std::string message;
  for (const Part part : {Part::trained, Part::held_out}) {
    try {
      const auto all = documents(dir, path, part, 0.5);
      CHECK(all.size() == 1);
    } catch (const DataError& error) {
      message = error.what();
    }
  }
  CHECK(has(message, "data.eval_share: no document of 1 file(s) is "));
  CHECK(has(message, "name files to evaluate on: data.eval"));
}

}  // namespace
}  // namespace tptrain::data
