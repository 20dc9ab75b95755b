// The text of a tokenizer.json as data: the two large lists of its model taken out while it is
// parsed, the rest as a small tree. Nothing is interpreted here. Private to this folder.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tptrain::tokenizer {

struct TokenizerJson {
  nlohmann::json tree;  // without the contents of model.vocab and model.merges
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

/// Throws DataError naming `name` and what is wrong: not JSON, not UTF-8, too deep, too large, a
/// key given twice, an entry of vocab that is no id, an entry of merges that is no pair. Takes
/// memory in proportion to the text.
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& name);

/// The same for a vocab.json, which is one flat object.
std::vector<std::pair<std::string, int32_t>> parse_vocab_json(std::string_view text,
                                                              const std::string& name);

/// A token for a message: not all of it where it is long.
std::string shown(const std::string& token);

/// "left right" with exactly one space; false where it is not.
bool split_merge(const std::string& line, std::pair<std::string, std::string>& merge);

/// An object of the tree and where it stands, so that each complaint can say so. Every getter
/// throws DataError where the value is missing or of another kind.
class JsonObject {
 public:
  JsonObject(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }
  bool has(const std::string& key) const;  // and is not null
  bool flag(const std::string& key) const;
  bool flag(const std::string& key, bool absent) const;
  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& absent) const;
  /// 0 to 2^31 - 1.
  int32_t number(const std::string& key) const;
  /// One character.
  std::string character(const std::string& key) const;
  JsonObject object(const std::string& key) const;
  std::vector<JsonObject> objects(const std::string& key) const;
  const nlohmann::json& value(const std::string& key) const;
  std::vector<std::string> keys() const;
  /// Throws where the object has a key that is not among these: what this version does not know may
  /// change ids.
  void only(std::initializer_list<const char*> known) const;
  [[noreturn]] void wrong(const std::string& key, const char* kind) const;

 private:
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace tptrain::tokenizer
