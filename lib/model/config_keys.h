// Reading the keys of a Hugging Face config.json: each reader notes what is wrong instead of
// throwing, so that one run shows every problem of the file. Knows no key by itself.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace tptrain::model {

class ConfigKeys {
 public:
  /// `object` is the parsed file, or an object within it; `name` is the file, for messages. Both
  /// `object` and `problems` must outlive it.
  ConfigKeys(const nlohmann::json& object, std::string name, std::vector<Problem>& problems);

  /// Integer in [1, 2^31); without a default the key is required. A key that is null counts as
  /// absent.
  int64_t positive_integer(const std::string& key, std::optional<int64_t> otherwise);
  /// Finite number > 0.
  double positive_number(const std::string& key, double otherwise);
  /// Number in [0, 1).
  double fraction(const std::string& key, double otherwise);
  bool boolean(const std::string& key, bool otherwise);
  std::string text(const std::string& key, const std::string& otherwise);
  /// The keys of a non-empty object within this one, or nothing (absent, null, or of another type,
  /// which is noted).
  std::optional<ConfigKeys> section(const std::string& key);

  /// Notes that the decoder cannot do what the key asks for, unless it is absent, null or
  /// `harmless`.
  void refuse_unless(const std::string& key, const nlohmann::json& harmless,
                     const std::string& why);
  /// Notes a complaint about a key of this file.
  void complain(Problem problem);
  bool has(const std::string& key) const { return value(key) != nullptr; }
  /// The key is there and says null, which transformers tells from an absent one.
  bool is_null(const std::string& key) const;
  /// As it stands; null pointer where absent or null.
  const nlohmann::json* value(const std::string& key) const;

 private:
  std::string shown(const std::string& key, const nlohmann::json& value) const;

  const nlohmann::json& object_;
  std::string name_;
  std::vector<Problem>& problems_;
};

}  // namespace tptrain::model
