// How an entry of the list of keys is tied to its member of run_config.h, and the parts the list is
// written in: one function a file keys_*.cpp. Private to the list of keys.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "config/keys.h"

namespace tptrain::config {

std::vector<Key> model_keys();
std::vector<Key> adapter_keys();
std::vector<Key> parallel_keys();
std::vector<Key> data_keys();
std::vector<Key> train_keys();
std::vector<Key> optimizer_keys();
std::vector<Key> scheduler_keys();
std::vector<Key> output_keys();  // checkpoint, eval, logging

// Largest size a key accepts: products of two sizes stay within int64_t.
constexpr int64_t kLargest = 2147483647;
constexpr Limits kPositive = {.at_least = 1, .at_most = kLargest};
constexpr Limits kNotNegative = {.at_least = 0, .at_most = kLargest};

/// One list after the other.
std::vector<Key> joined(const std::vector<std::vector<Key>>& parts);

inline bool is_empty(const Value& value) {
  return std::visit(
      [](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_arithmetic_v<T>) {
          return v == T{};
        } else {
          return v.empty();
        }
      },
      value);
}

// The accessors of a member of a section: bind(key, &RunConfig::parallel,
// &ParallelConfig::tp_size).
template <typename SectionStruct, typename Member>
Key bind(Key key, SectionStruct RunConfig::*section, Member SectionStruct::*member) {
  const bool may_be_absent = key.presence == Presence::absent;
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    Value value = config.*section.*member;
    if (may_be_absent && is_empty(value)) return std::nullopt;
    return value;
  };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*section.*member = std::get<Member>(value);
  };
  return key;
}

// The same for a member of a section within one.
template <typename SectionStruct, typename InnerStruct, typename Member>
Key bind(Key key, SectionStruct RunConfig::*section, InnerStruct SectionStruct::*inner,
         Member InnerStruct::*member) {
  key.get = [=](const RunConfig& config) {
    return std::optional<Value>(config.*section.*inner.*member);
  };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*section.*inner.*member = std::get<Member>(value);
  };
  return key;
}

/// The words of an enum as a key's allowed ones, and the enum that a word of them means.
template <typename Enum>
std::vector<std::string> words_of() {
  return {Words<Enum>::list.begin(), Words<Enum>::list.end()};
}
template <typename Enum>
Enum from_word(const std::string& word) {
  const std::optional<Enum> found = meaning<Enum>(word);
  if (!found) throw InternalError(problem(cat("\"", word, "\" is set as a word")));
  return *found;
}

// A member that is an enum, or an optional one (Presence::absent).
template <typename SectionStruct, typename Enum>
requires std::is_enum_v<Enum> Key bind(Key key, SectionStruct RunConfig::*section,
                                       Enum SectionStruct::*member) {
  key.allowed = words_of<Enum>();
  key.get = [=](const RunConfig& config) {
    return std::optional<Value>(std::string(word(config.*section.*member)));
  };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*section.*member = from_word<Enum>(std::get<std::string>(value));
  };
  return key;
}
template <typename SectionStruct, typename InnerStruct, typename Enum>
requires std::is_enum_v<Enum> Key bind(Key key, SectionStruct RunConfig::*section,
                                       InnerStruct SectionStruct::*inner,
                                       Enum InnerStruct::*member) {
  key.allowed = words_of<Enum>();
  key.get = [=](const RunConfig& config) {
    return std::optional<Value>(std::string(word(config.*section.*inner.*member)));
  };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*section.*inner.*member = from_word<Enum>(std::get<std::string>(value));
  };
  return key;
}
template <typename SectionStruct, typename Enum>
requires std::is_enum_v<Enum> Key bind(Key key, SectionStruct RunConfig::*section,
                                       std::optional<Enum> SectionStruct::*member) {
  key.allowed = words_of<Enum>();
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    const std::optional<Enum>& value = config.*section.*member;
    return value ? std::optional<Value>(std::string(word(*value))) : std::nullopt;
  };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*section.*member = from_word<Enum>(std::get<std::string>(value));
  };
  return key;
}

// The same for a member of model.architecture, which setting a key brings into being.
template <typename Member>
Key bind(Key key, Member ArchitectureConfig::*member) {
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    if (!config.model.architecture) return std::nullopt;
    return Value(*config.model.architecture.*member);
  };
  key.set = [=](RunConfig& config, const Value& value) {
    if (!config.model.architecture) config.model.architecture.emplace();
    *config.model.architecture.*member = std::get<Member>(value);
  };
  return key;
}

inline Key bind(Key key, std::optional<bool> ArchitectureConfig::*member) {
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    if (!config.model.architecture) return std::nullopt;
    const std::optional<bool>& value = *config.model.architecture.*member;
    return value ? std::optional<Value>(*value) : std::nullopt;
  };
  key.set = [=](RunConfig& config, const Value& value) {
    if (!config.model.architecture) config.model.architecture.emplace();
    *config.model.architecture.*member = std::get<bool>(value);
  };
  return key;
}

// The same for a member of adapter.
template <typename Member>
Key bind(Key key, Member AdapterConfig::*member) {
  if constexpr (std::is_enum_v<Member>) key.allowed = words_of<Member>();
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    if (!config.adapter) return std::nullopt;
    if constexpr (std::is_enum_v<Member>) {
      return Value(std::string(word(*config.adapter.*member)));
    } else {
      return Value(*config.adapter.*member);
    }
  };
  key.set = [=](RunConfig& config, const Value& value) {
    if (!config.adapter) config.adapter.emplace();
    if constexpr (std::is_enum_v<Member>) {
      *config.adapter.*member = from_word<Member>(std::get<std::string>(value));
    } else {
      *config.adapter.*member = std::get<Member>(value);
    }
  };
  return key;
}

inline Key bind(Key key, std::string RunConfig::*member) {
  key.get = [=](const RunConfig& config) { return std::optional<Value>(config.*member); };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*member = std::get<std::string>(value);
  };
  return key;
}

}  // namespace tptrain::config
