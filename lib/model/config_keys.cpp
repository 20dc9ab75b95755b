#include "model/config_keys.h"

#include <limits>
#include <utility>

#include "base/text.h"

namespace tptrain::model {

namespace {

constexpr int64_t kLargestInteger = std::numeric_limits<int32_t>::max();
constexpr size_t kShownCharacters = 80;  // of a value in a message: config.json may hold long lists

}  // namespace

ConfigKeys::ConfigKeys(const nlohmann::json& object, std::string name,
                       std::vector<Problem>& problems)
    : object_(object), name_(std::move(name)), problems_(problems) {}

const nlohmann::json* ConfigKeys::value(const std::string& key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigKeys::is_null(const std::string& key) const {
  const auto found = object_.find(key);
  return found != object_.end() && found->is_null();
}

std::string ConfigKeys::shown(const std::string& key, const nlohmann::json& value) const {
  std::string text = value.dump();
  if (text.size() <= kShownCharacters) return cat(key, " is ", text);
  text.resize(kShownCharacters);
  return cat(key, " is ", text, "...");
}

void ConfigKeys::complain(Problem problem) { problems_.push_back(std::move(problem).at(name_)); }

int64_t ConfigKeys::positive_integer(const std::string& key, std::optional<int64_t> otherwise) {
  const nlohmann::json* value = this->value(key);
  if (!value && otherwise) return *otherwise;
  if (!value) {
    complain(
        problem(cat(key, " is missing")).must(cat("be an integer from 1 to ", kLargestInteger)));
    return 0;
  }
  // is_number_integer: 896.0 is a float in JSON, and no size.
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() &&
                      value->get<uint64_t>() > static_cast<uint64_t>(kLargestInteger)) &&
                    value->get<int64_t>() >= 1;
  if (fits) return value->get<int64_t>();
  complain(problem(shown(key, *value)).must(cat("be an integer from 1 to ", kLargestInteger)));
  return 0;
}

double ConfigKeys::positive_number(const std::string& key, double otherwise) {
  const nlohmann::json* value = this->value(key);
  if (!value) return otherwise;
  if (value->is_number() && value->get<double>() > 0) return value->get<double>();
  complain(problem(shown(key, *value)).must("be a number above 0"));
  return otherwise;
}

double ConfigKeys::fraction(const std::string& key, double otherwise) {
  const nlohmann::json* value = this->value(key);
  if (!value) return otherwise;
  if (value->is_number() && value->get<double>() >= 0 && value->get<double>() < 1) {
    return value->get<double>();
  }
  complain(problem(shown(key, *value)).must("be a number from 0 to below 1"));
  return otherwise;
}

bool ConfigKeys::boolean(const std::string& key, bool otherwise) {
  const nlohmann::json* value = this->value(key);
  if (!value) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  complain(problem(shown(key, *value)).must("be true or false"));
  return otherwise;
}

std::string ConfigKeys::text(const std::string& key, const std::string& otherwise) {
  const nlohmann::json* value = this->value(key);
  if (!value) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  complain(problem(shown(key, *value)).must("be a string"));
  return otherwise;
}

std::optional<ConfigKeys> ConfigKeys::section(const std::string& key) {
  const nlohmann::json* object = value(key);
  if (!object) return std::nullopt;
  if (!object->is_object()) {
    complain(problem(shown(key, *object)).must("be an object"));
    return std::nullopt;
  }
  if (object->empty()) return std::nullopt;
  return ConfigKeys(*object, cat(name_, ": ", key), problems_);
}

void ConfigKeys::refuse_unless(const std::string& key, const nlohmann::json& harmless,
                               const std::string& why) {
  const nlohmann::json* value = this->value(key);
  if (!value || *value == harmless) return;
  const std::string allowed =
      harmless.is_null() ? "be absent" : cat("be ", harmless.dump(), " or absent");
  complain(problem(shown(key, *value)).must(allowed).remedy(why));
}

}  // namespace tptrain::model
