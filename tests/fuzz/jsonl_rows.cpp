// Fuzzes the rows of JSON lines: whatever the bytes, each line is a row within the vocabulary,
// blank or refused with a DataError, and the parser goes on after a refusal.
#include "data/jsonl_rows.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "formats/token_file.h"

namespace {

constexpr int64_t kVocabSize = 300;

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const tptrain::data::JsonlRow& row) {
  using Content = tptrain::data::RowKind::Content;
  const Content content = row.kind.content;
  require(content == Content::text || row.text.empty());
  for (const int32_t id : row.ids) require(id >= 0 && id < kVocabSize);
  for (const int32_t label : row.labels) {
    require(label == tptrain::formats::kNoLabel || (label >= 0 && label < kVocabSize));
  }
  require(row.labels.size() == (content == Content::labelled_ids ? row.ids.size() : 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tptrain::data::JsonlParser parser(kVocabSize);
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (int64_t line = 1; !rest.empty(); ++line) {
    const size_t end = rest.find('\n');
    try {
      const auto row = parser.parse(rest.substr(0, end), "fuzz.jsonl", line);
      if (row) check(*row);
    } catch (const tptrain::DataError&) {
      // A refusal is one of the right answers.
    }
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return 0;
}
