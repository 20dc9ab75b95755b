// Fuzzes rows of conversations up to their labels: whatever the bytes, a row is refused with a
// DataError or becomes ids with a label each, which is the id or none.
#include "data/chat_rows.h"

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "chat_template/chat_template.h"
#include "data/jsonl_rows.h"
#include "formats/token_file.h"

namespace {

using tptrain::chat_template::ChatTemplate;

/// Writes every field that a row may have, and rewrites some.
const ChatTemplate& chat() {
  static const ChatTemplate made = ChatTemplate::from_source(
      "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content | trim }}"
      "{% elif m.content %}{{ m.content | tojson }}{% endif %}{{ m.reasoning_content | default('') "
      "}}{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %}</s>\n{% endfor %}"
      "{% if tools %}{{ tools | tojson }}{% endif %}",
      "fuzz", {{"eos_token", "</s>"}});
  return made;
}

void check(const tptrain::data::LabelledIds& row) {
  if (row.ids.size() != row.labels.size()) std::abort();
  for (size_t i = 0; i < row.ids.size(); ++i) {
    if (row.labels[i] != row.ids[i] && row.labels[i] != tptrain::formats::kNoLabel) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tptrain::data;
  static const auto bytes = tptrain::tokenizer::make_tokenizer("bytes");
  JsonlParser parser(300);
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (int64_t line = 1; !rest.empty(); ++line) {
    const size_t end = rest.find('\n');
    try {
      const auto row = parser.parse(rest.substr(0, end), "fuzz.jsonl", line);
      using Content = RowKind::Content;
      for (const TrainOn train_on : {TrainOn::assistant, TrainOn::last, TrainOn::all}) {
        if (row && row->kind.content == Content::conversation)
          check(encode_conversation(row->conversation, chat(), *bytes, {.train_on = train_on}));
        if (row && row->kind.content == Content::completion)
          check(encode_completion(row->prompt, row->completion, *bytes, {.train_on = train_on}));
      }
    } catch (const tptrain::DataError&) {
      // A refusal is one of the right answers.
    }
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return 0;
}
