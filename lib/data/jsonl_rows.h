// One line of a JSON lines file -> one document: its text, or its ids with or without labels. Knows
// neither files nor tokenizers, never includes torch, and trusts nothing in the line.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::data {

/// The longest line that is read: what a line costs beside itself grows with it (simdjson needs
/// about 12 bytes a byte while it parses).
inline constexpr int64_t kMaxLineBytes = int64_t{32} << 20;

enum class RowKind { text, ids, labelled_ids };

/// "text", "input_ids", "input_ids with labels"
std::string describe(RowKind kind);

struct JsonlRow {
  RowKind kind = RowKind::text;
  std::string text;
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;  // as many as ids where kind is labelled_ids: an id, or
                                // formats::kNoLabel
};

/// Keeps its buffers from line to line.
class JsonlParser {
 public:
  /// ids and labels must be below vocab_size.
  explicit JsonlParser(int64_t vocab_size);
  ~JsonlParser();
  JsonlParser(const JsonlParser&) = delete;

  /// None where the line is blank. {"text": "..."} or {"input_ids": [...]}, the latter with
  /// "labels": [...] or without; other keys are ignored. `file` and `line_number` (from 1) are for
  /// messages. Throws DataError: not JSON, not UTF-8, no object, none of the keys or both, a key
  /// twice, a value of another kind, an id that is no integer or not in the vocabulary, labels of
  /// another number than ids.
  std::optional<JsonlRow> parse(std::string_view line, std::string_view file, int64_t line_number);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::data
