// How an entry of the list of keys is tied to its member of run_config.h, and the parts the list is
// written in: one function a file keys_*.cpp. Private to the list of keys.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "config/keys.h"

namespace tptrain::config {

std::vector<Key> model_keys();
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

inline Key bind(Key key, std::string RunConfig::*member) {
  key.get = [=](const RunConfig& config) { return std::optional<Value>(config.*member); };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*member = std::get<std::string>(value);
  };
  return key;
}

}  // namespace tptrain::config
