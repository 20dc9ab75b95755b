// What the columns of rows are called in the files, data.columns and data.text_key, and who speaks
// there, data.roles. Knows no row.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::data {

/// The key that holds the text of a row, where nothing says another.
inline constexpr std::string_view kTextKey = "text";

class RowNames {
 public:
  using Columns = std::map<std::string, std::string, std::less<>>;

  using Roles = std::map<std::string, std::vector<std::string>, std::less<>>;

  RowNames() = default;
  /// `columns`: our name -> the file's (config::kColumnNames). Where they name a kind of row, rows
  /// are of no other; `text_key` only says what the text is called. `roles`: a template's name of
  /// who speaks -> the words of the files for it.
  explicit RowNames(Columns columns, std::string_view text_key = kTextKey, Roles roles = {});

  /// What is called `ours` here is called so in the files.
  std::string_view of(std::string_view ours) const;
  bool says(std::string_view ours) const { return columns_.contains(ours); }

  /// Who a word of the files means, as `roles` say; "" where they do not say.
  std::string_view role_of(std::string_view word) const;

  /// Whether rows may be of the kind to which the column `ours` belongs.
  bool may_be(std::string_view ours) const;
  /// The columns without which no row is of a kind that is named, as ours; none where none is.
  const std::vector<std::string_view>& required() const { return required_; }
  /// Whether what rows train on is said, and not for them to say: a kind is named, or the text.
  bool say_kind() const { return !required_.empty() || of(kTextKey) != kTextKey; }
  /// Whether rows hold what they train on under this key, in any kind of row.
  bool is_row_key(std::string_view key) const;

  /// What decides tokens beside data.text_key: "messages: dialog, role: from"; "" where nothing.
  std::string named_columns() const;
  /// "assistant: bot, user: visitor | guest"; likewise.
  std::string named_roles() const;

  bool operator==(const RowNames&) const = default;

 private:
  Columns columns_;
  Roles roles_;
  bool columns_say_text_ = false;
  std::vector<std::string_view> required_;
};

}  // namespace tptrain::data
