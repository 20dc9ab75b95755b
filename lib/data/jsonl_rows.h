// One row, a JSON object -> one document: its text, its ids with or without labels, a conversation,
// or a prompt with its completion. Knows
// neither files nor tokenizers, never includes torch, and trusts nothing in the row.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/conversation.h"
#include "data/row_names.h"

namespace tptrain::data {

/// The longest line that is read: what a line costs beside itself grows with it (simdjson needs
/// about 12 bytes a byte while it parses).
inline constexpr int64_t kMaxLineBytes = int64_t{32} << 20;

/// What a row may be, for messages.
inline constexpr const char* kRowForms =
    "{\"text\": \"...\"} or {\"input_ids\": [...]}, the latter with \"labels\": [...] or without, "
    "or a conversation such as {\"messages\": [...]} (docs/data.md)";
inline std::string must_be_a_row() {
  return std::string("be one JSON object a line, ") + kRowForms;
}

/// Whether a line is no row.
bool is_blank(std::string_view line);

struct RowKind {
  enum class Content { text, ids, labelled_ids, conversation, completion };
  Content content = Content::text;
  bool masked = false;       // ids with an attention_mask
  bool instruction = false;  // a conversation of {"instruction", "output", ...}
  bool operator==(const RowKind&) const = default;
};

/// "text", "input_ids", "input_ids with labels and attention_mask"
std::string describe(const RowKind& kind);

struct JsonlRow {
  RowKind kind = {};
  std::string text = {};
  std::vector<int32_t> ids = {};
  std::vector<int32_t> labels = {};  // as many as ids where they are labelled_ids: an id, or
                                     // formats::kNoLabel
  Conversation conversation = {};
  std::string prompt = {};
  std::string completion = {};
  /// Columns beside those that are read that look like conversations: "\"chosen\", \"rejected\"".
  std::string unread = {};
};

/// Keeps its buffers from line to line.
class JsonlParser {
 public:
  /// ids and labels must be below vocab_size; `names` says what the keys are called.
  explicit JsonlParser(int64_t vocab_size, RowNames names = {});
  ~JsonlParser();
  JsonlParser(const JsonlParser&) = delete;

  /// None where the line is blank. {"text": "..."} or {"input_ids": [...]}, the latter with
  /// "labels": [...] or without; ids for which "attention_mask" is 0 are padding, and left out.
  /// Else a conversation in one of the forms of conversation_rows.h, or {"prompt": "...",
  /// "completion": "..."}, which a key that is called "text" beside it does not change. Where the
  /// names say a kind of row, of that kind alone. Other keys are ignored, whatever they hold, but
  /// for what looks like a conversation beside text, or beside ids without labels: which of the two
  /// is meant is for the names to say.
  /// `file` and `line_number` (from 1) are for messages. Throws BadRow: not JSON, not UTF-8, no
  /// object, none of the keys or both, text beside a conversation of no known name, a key twice, a
  /// value of another kind, an id that is no integer or not in the vocabulary, labels or a mask of
  /// another number than ids, a mask with a hole.
  std::optional<JsonlRow> parse(std::string_view line, std::string_view file, int64_t line_number);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::data
