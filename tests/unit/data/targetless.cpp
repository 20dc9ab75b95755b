// Documents without a target: counted as they are trained, and named by the rows they come from.
#include "data/targetless.h"

#include "base/text.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::TempDir;

PreparedTokens prepared(const TempDir& dir, const Corpus& corpus,
                        const tokenizer::Tokenizer& tokenizer) {
  return prepare_tokens(corpus, tokenizer, dir / "data", "train");
}

// Line 1: a target; 2: blank; 3: none; 4: a target behind the fourth token; 5: one token; 6: empty.
constexpr const char* kRows = R"({"input_ids": [1, 2, 3], "labels": [-100, -100, 3]}

{"input_ids": [1, 2, 3], "labels": [1, -100, -100]}
{"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, -100, -100, -100, -100, 6]}
{"input_ids": [7], "labels": [7]}
{"input_ids": [], "labels": []}
{"input_ids": [1, 2], "labels": [-100, 2]}
)";

}  // namespace

TEST_CASE("documents without a target are counted within what is trained", "[data]") {
  const TempDir dir;
  dir.put("rows.jsonl", kRows);
  const auto tokenizer = tokenizer::make_tokenizer("bytes");
  const Corpus corpus{.sources = {{(dir / "rows.jsonl").string()}}};
  const PreparedTokens tokens = prepared(dir, corpus, *tokenizer);
  // The label of a document's first token is nobody's target.
  const TargetlessDocuments whole = targetless_documents(tokens, Packing::stream, 4);
  CHECK(whole.count == 2);
  CHECK(whole.first == std::vector<int64_t>{1, 3});
  const TargetlessDocuments cut = targetless_documents(tokens, Packing::none, 4);
  CHECK(cut.count == 3);
  CHECK(cut.first == std::vector<int64_t>{1, 2, 3});
  CHECK(targetless_documents(tokens, Packing::none, 5).count == 2);
  const std::string file = (dir / "rows.jsonl").string();
  CHECK(places_of_documents(corpus, "train", *tokenizer, cut.first) ==
        std::vector<std::string>{file + ":3", file + ":4", file + ":5"});
}

TEST_CASE("rows are named over several files, the first few of many", "[data]") {
  const TempDir dir;
  dir.put("a.txt", "text");
  dir.put("b.jsonl", kRows);
  std::string many;
  for (int i = 0; i < 20; ++i) many += "{\"input_ids\": [1, 2], \"labels\": [1, -100]}\n";
  dir.put("c.jsonl", many);
  const auto tokenizer = tokenizer::make_tokenizer("bytes");
  const Corpus corpus{.sources = {{(dir / "*.txt").string()}, {(dir / "*.jsonl").string()}}};
  const PreparedTokens tokens = prepared(dir, corpus, *tokenizer);
  const TargetlessDocuments found = targetless_documents(tokens, Packing::best_fit, 4);
  CHECK(found.count == 22);
  const std::string b = (dir / "b.jsonl").string(), c = (dir / "c.jsonl").string();
  CHECK(places_of_documents(corpus, "train", *tokenizer, found.first) ==
        std::vector<std::string>{b + ":3", b + ":5", c + ":1", c + ":2", c + ":3"});
}

TEST_CASE("text has a target from its second token on", "[data]") {
  const TempDir dir;
  dir.put("b.jsonl", "{\"input_ids\": [3]}\n");
  const auto tokenizer = tokenizer::make_tokenizer("bytes");
  const Corpus corpus{.sources = {{(dir / "b.jsonl").string()}}};
  CHECK(targetless_documents(prepared(dir, corpus, *tokenizer), Packing::none, 4).count == 1);
  const Corpus text{.sources = {{(dir.put("t.txt", "ab")).string()}}};
  CHECK(targetless_documents(prepared(dir, text, *tokenizer), Packing::none, 4).count == 0);
}

}  // namespace tptrain::data
