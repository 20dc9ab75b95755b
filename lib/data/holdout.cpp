#include "data/holdout.h"

#include <nlohmann/json.hpp>

#include "base/files.h"

namespace tptrain::data {

namespace {

std::string bytes_of(const std::vector<int32_t>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof ids[0]};
}

}  // namespace

bool Holdout::takes(std::string_view content) const {
  if (!any()) return true;
  Sha256 hash;
  hash.update(content);
  constexpr int kDigits = 13;  // 52 bits: as many as a double keeps
  const auto number = std::stoull(hash.hex().substr(0, kDigits), nullptr, 16);
  const double place = static_cast<double>(number) / static_cast<double>(1ull << (4 * kDigits));
  return (place < share) == (part == Part::held_out);
}

std::string Holdout::content_of(const JsonlRow& row) {
  switch (row.kind.content) {
    case RowKind::Content::text:
      return row.text;
    case RowKind::Content::ids:
      return bytes_of(row.ids);
    case RowKind::Content::labelled_ids:
      return bytes_of(row.ids) + bytes_of(row.labels);
    case RowKind::Content::conversation:
      return row.conversation.messages.dump() + row.conversation.tools.dump();
    case RowKind::Content::completion:
      return row.prompt + row.completion;
  }
  return row.text;
}

}  // namespace tptrain::data
