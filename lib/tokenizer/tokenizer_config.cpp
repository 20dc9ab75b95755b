#include "tokenizer/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace tptrain::tokenizer {

namespace {

using nlohmann::json;

constexpr int64_t kLargestFile = 64 << 20;  // the largest known, Llama-3's, has 51 kB
constexpr int kDeepest = 64;
constexpr const char* kTokenKeys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                      "pad_token", "cls_token", "mask_token"};

[[noreturn]] void wrong_kind(const std::string& file, const std::string& key, const json& value,
                             const std::string& wanted) {
  throw DataError(problem(cat(key, " is ", value.is_object() ? "an object" : value.type_name()))
                      .at(file)
                      .must(cat("be ", wanted)));
}

/// The object that a file holds; an absent file is an empty one.
json read_object(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
    return json::object();
  }
  const std::string text = read_file(path, kLargestFile, FailAs::data_error);
  const auto not_too_deep = [&](int depth, json::parse_event_t event, json&) {
    const bool opens =
        event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    if (opens && depth >= kDeepest) {
      throw DataError(problem("JSON nested deeper than this file ever is")
                          .at(path.string())
                          .must(cat("stay within ", kDeepest, " levels")));
    }
    return true;
  };
  json value;
  try {
    value = json::parse(text.begin(), text.end(), not_too_deep);
  } catch (const json::parse_error& e) {
    throw DataError(problem(cat("not valid JSON at byte ", e.byte)).at(path.string()));
  } catch (const json::exception&) {  // a number beyond every type
    throw DataError(problem("not valid JSON: a number is out of range").at(path.string()));
  }
  if (!value.is_object()) {
    throw DataError(
        problem(cat("holds ", value.type_name())).at(path.string()).must("hold one object"));
  }
  return value;
}

bool flag_of(const json& object, const char* key, bool absent, const std::string& file,
             const std::string& name) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return absent;
  if (!found->is_boolean()) wrong_kind(file, cat(name, ".", key), *found, "true or false");
  return found->get<bool>();
}

std::optional<bool> optional_flag(const json& object, const char* key, const std::string& file) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (!found->is_boolean()) wrong_kind(file, key, *found, "true or false");
  return found->get<bool>();
}

/// Both spellings of a token. A string is special and looked for in the text as it stands.
AddedToken token_of(const json& value, const std::string& name, const std::string& file,
                    bool special_unless_said) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
  } else if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    token.content = value["content"].get<std::string>();
    token.special = flag_of(value, "special", special_unless_said, file, name);
    token.normalized = flag_of(value, "normalized", !token.special, file, name);
    token.single_word = flag_of(value, "single_word", false, file, name);
    token.lstrip = flag_of(value, "lstrip", false, file, name);
    token.rstrip = flag_of(value, "rstrip", false, file, name);
  } else {
    wrong_kind(file, name, value, "a string, or an object with a string \"content\"");
  }
  if (token.content.empty()) {
    throw DataError(problem(cat(name, " is an empty string")).at(file).must("have a text"));
  }
  return token;
}

void read_named(const json& object, const std::string& file, TokenizerConfig& config) {
  const auto known = [&](const std::string& key) {
    return std::any_of(config.named.begin(), config.named.end(),
                       [&](const NamedToken& named) { return named.key == key; });
  };
  for (const std::string key : kTokenKeys) {
    const auto found = object.find(key);
    if (found == object.end() || found->is_null() || known(key)) continue;
    config.named.push_back({key, token_of(*found, key, file, /*special_unless_said=*/true)});
  }
  const std::string key = "additional_special_tokens";
  const auto found = object.find(key);
  if (found == object.end() || found->is_null() || known(key)) return;
  if (!found->is_array()) wrong_kind(file, key, *found, "a list of tokens");
  for (const json& entry : *found) {
    config.named.push_back({key, token_of(entry, key, file, /*special_unless_said=*/true)});
  }
}

int32_t id_of(const std::string& text, const std::string& file) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0) {
    throw DataError(problem(cat("added_tokens_decoder has the key \"", text, "\""))
                        .at(file)
                        .must("have ids as keys"));
  }
  return id;
}

void read_added(const json& config_json, const std::string& config_file, const json& added_json,
                const std::string& added_file, TokenizerConfig& config) {
  std::map<int32_t, AddedToken> by_id;
  if (const auto found = config_json.find("added_tokens_decoder"); found != config_json.end()) {
    if (!found->is_object()) wrong_kind(config_file, found.key(), *found, "an object");
    for (const auto& [key, value] : found->items()) {
      const int32_t id = id_of(key, config_file);
      AddedToken token = token_of(value, cat("added_tokens_decoder.", key), config_file,
                                  /*special_unless_said=*/false);
      token.id = id;
      by_id.emplace(id, token);
    }
  }
  for (const auto& [content, value] : added_json.items()) {
    if (!value.is_number_integer() || value < 0 || value > INT32_MAX) {
      wrong_kind(added_file, cat("\"", content, "\""), value, "an id");
    }
    const auto special = std::find_if(
        config.named.begin(), config.named.end(),
        [&content = content](const NamedToken& named) { return named.token.content == content; });
    AddedToken token;
    token.content = content;
    token.special = false;
    token.normalized = true;
    if (special != config.named.end()) token = special->token;
    token.id = value.get<int32_t>();
    by_id.emplace(token.id, token);
  }
  for (auto& [id, token] : by_id) config.added.push_back(std::move(token));
}

void read_template(const json& value, const std::string& file, TokenizerConfig& config) {
  const std::string wanted = "a string, or a list of {\"name\": ..., \"template\": ...}";
  if (value.is_string()) {
    config.chat_templates.emplace_back("default", value.get<std::string>());
    return;
  }
  if (!value.is_array()) wrong_kind(file, "chat_template", value, wanted);
  for (const json& entry : value) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() ||
        !entry.contains("template") || !entry["template"].is_string()) {
      wrong_kind(file, "chat_template", value, wanted);
    }
    config.chat_templates.emplace_back(entry["name"].get<std::string>(),
                                       entry["template"].get<std::string>());
  }
}

}  // namespace

std::string TokenizerConfig::token(const std::string& key) const {
  for (const NamedToken& entry : named) {
    if (entry.key == key) return entry.token.content;
  }
  return "";
}

TokenizerConfig read_tokenizer_config(const std::string& directory) {
  const std::filesystem::path folder = directory;
  const auto path = [&](const char* name) { return (folder / name).string(); };
  const std::string config_file = path("tokenizer_config.json");
  const std::string map_file = path("special_tokens_map.json");
  const std::string added_file = path("added_tokens.json");
  const json config_json = read_object(config_file);
  const json map_json = read_object(map_file);
  const json added_json = read_object(added_file);

  TokenizerConfig config;
  config.place = directory;
  read_named(config_json, config_file, config);
  read_named(map_json, map_file, config);
  read_added(config_json, config_file, added_json, added_file, config);
  if (const auto found = config_json.find("tokenizer_class");
      found != config_json.end() && found->is_string()) {
    config.tokenizer_class = found->get<std::string>();
  }
  config.add_bos_token = optional_flag(config_json, "add_bos_token", config_file);
  config.add_eos_token = optional_flag(config_json, "add_eos_token", config_file);
  config.add_prefix_space = optional_flag(config_json, "add_prefix_space", config_file);
  config.legacy = optional_flag(config_json, "legacy", config_file);

  std::error_code ignored;
  if (std::filesystem::exists(
          std::filesystem::symlink_status(path("chat_template.jinja"), ignored))) {
    config.chat_templates.emplace_back(
        "default", read_file(path("chat_template.jinja"), kLargestFile, FailAs::data_error));
    return config;
  }
  const std::string template_file = path("chat_template.json");
  const json own_file = read_object(template_file);
  if (const auto found = own_file.find("chat_template"); found != own_file.end()) {
    read_template(*found, template_file, config);
  } else if (const auto inside = config_json.find("chat_template");
             inside != config_json.end() && !inside->is_null()) {
    read_template(*inside, config_file, config);
  }
  return config;
}

}  // namespace tptrain::tokenizer
