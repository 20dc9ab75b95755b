// Field access that refuses instead of throwing nlohmann's own errors: a manifest may hold
// anything. Private to the reading of manifests.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "checkpoint/manifest.h"

namespace tptrain::checkpoint {

using Json = nlohmann::json;

inline constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

inline int64_t integer_of(const Json& value, const std::string& place, int64_t low, int64_t high) {
  const bool fits =
      value.is_number_integer() &&
      (!value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(kMax));
  if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high)
    throw Refused(cat("manifest: ", place, " is no whole number from ", low, " to ", high));
  return value.get<int64_t>();
}

inline std::vector<int64_t> integers_of(const Json& list, const std::string& place, int64_t low,
                                        int64_t high) {
  if (!list.is_array()) throw Refused(cat("manifest: ", place, " is no list"));
  std::vector<int64_t> values;
  for (const Json& value : list) values.push_back(integer_of(value, place, low, high));
  return values;
}

class Fields {
 public:
  Fields(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object.is_object()) throw Refused(cat("manifest: ", place_, " is no object"));
  }

  const Json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) throw Refused(cat("manifest: ", place_, " lacks the field ", key));
    return *found;
  }

  std::string text(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string()) throw Refused(cat("manifest: ", place_, ".", key, " is no text"));
    return value.get<std::string>();
  }

  int64_t integer(const char* key, int64_t low, int64_t high) const {
    return integer_of(at(key), cat(place_, ".", key), low, high);
  }

  const Json& list(const char* key) const {
    const Json& value = at(key);
    if (!value.is_array()) throw Refused(cat("manifest: ", place_, ".", key, " is no list"));
    return value;
  }

  std::vector<int64_t> integers(const char* key, int64_t low, int64_t high) const {
    return integers_of(at(key), cat(place_, ".", key), low, high);
  }

  std::pair<int64_t, int64_t> interval(const char* key) const {
    const std::vector<int64_t> values = integers(key, 0, kMax);
    if (values.size() != 2 || values[0] > values[1]) {
      throw Refused(cat("manifest: ", place_, ".", key, " is no interval [begin, end]"));
    }
    return {values[0], values[1]};
  }

  /// A text -> text object that may be absent.
  std::map<std::string, std::string> texts(const char* key) const {
    std::map<std::string, std::string> values;
    const auto found = object_.find(key);
    if (found == object_.end()) return values;
    if (!found->is_object()) throw Refused(cat("manifest: ", place_, ".", key, " is no object"));
    for (const auto& [name, text] : found->items()) {
      if (!text.is_string())
        throw Refused(cat("manifest: a value of ", place_, ".", key, " is no text"));
      values[name] = text.get<std::string>();
    }
    return values;
  }

 private:
  const Json& object_;
  std::string place_;
};

}  // namespace tptrain::checkpoint
