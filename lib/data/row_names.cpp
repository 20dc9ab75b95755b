#include "data/row_names.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.h"

namespace tptrain::data {

namespace {

/// A kind of row: what it must have.
struct Kind {
  std::array<std::string_view, 2> columns;  // the second may be ""
  bool has(std::string_view ours) const {
    return std::find(columns.begin(), columns.end(), ours) != columns.end();
  }
};
constexpr std::array<Kind, 6> kKinds = {{{"text"},
                                         {"input_ids"},
                                         {"messages"},
                                         {"conversations"},
                                         {"prompt", "completion"},
                                         {"instruction", "output"}}};

// Keys that rows hold what they train on under, or what is refused with a better message than that
// there is none of them.
constexpr std::array<std::string_view, 9> kRowKeys = {"input_ids", "messages",    "conversations",
                                                      "prompt",    "completion",  "chosen",
                                                      "rejected",  "instruction", "output"};

}  // namespace

RowNames::RowNames(Columns columns, std::string_view text_key, Roles roles)
    : columns_(std::move(columns)), roles_(std::move(roles)) {
  columns_say_text_ = columns_.contains(kTextKey);
  for (const Kind& kind : kKinds) {
    const bool named = std::any_of(kind.columns.begin(), kind.columns.end(),
                                   [&](std::string_view ours) { return columns_.contains(ours); });
    if (!named) continue;
    for (const std::string_view ours : kind.columns)
      if (!ours.empty()) required_.push_back(ours);
  }
  if (!columns_say_text_ && text_key != kTextKey) columns_.emplace(kTextKey, text_key);
}

std::string_view RowNames::of(std::string_view ours) const {
  const auto said = columns_.find(ours);
  return said == columns_.end() ? ours : std::string_view(said->second);
}

std::string_view RowNames::role_of(std::string_view word) const {
  for (const auto& [ours, theirs] : roles_) {
    if (std::find(theirs.begin(), theirs.end(), word) != theirs.end()) return ours;
  }
  return {};
}

bool RowNames::may_be(std::string_view ours) const {
  return required_.empty() ||
         std::find(required_.begin(), required_.end(), ours) != required_.end();
}

bool RowNames::is_row_key(std::string_view key) const {
  return key == of(kTextKey) || std::any_of(kRowKeys.begin(), kRowKeys.end(),
                                            [&](std::string_view ours) { return key == of(ours); });
}

std::string RowNames::named_columns() const {
  std::vector<std::string> parts;
  for (const auto& [ours, theirs] : columns_) {
    if (ours != kTextKey || columns_say_text_) parts.push_back(cat(ours, ": ", theirs));
  }
  return join(parts);
}

std::string RowNames::named_roles() const {
  std::vector<std::string> parts;
  for (const auto& [ours, theirs] : roles_) parts.push_back(cat(ours, ": ", join(theirs, " | ")));
  return join(parts);
}

}  // namespace tptrain::data
