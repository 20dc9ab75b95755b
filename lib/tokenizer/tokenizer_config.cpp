#include "tokenizer/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/foreign_file.h"
#include "base/json_tree.h"
#include "base/python_json.h"
#include "base/text.h"

namespace tptrain::tokenizer {

namespace {

using nlohmann::json;

constexpr int64_t kLargestConfig = 64 << 20;  // the largest known, Llama-3's, has 51 kB
constexpr int kDeepest = 64;
constexpr const char* kTokenKeys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                      "pad_token", "cls_token", "mask_token"};
constexpr const char* kDecoderKey = "added_tokens_decoder";
constexpr const char* kTemplateFolder = "additional_chat_templates";
constexpr const char* kExtraKey = "extra_special_tokens";

[[noreturn]] void wrong_kind(const std::string& file, const std::string& key, const json& value,
                             const std::string& wanted) {
  throw DataError(problem(cat(key, " is ", value.is_object() ? "an object" : value.type_name()))
                      .at(file)
                      .must(cat("be ", wanted)));
}

/// The object that a file holds, and the order of its keys, which decides ids; an absent file is an
/// empty one.
struct FileObject {
  json value = json::object();
  std::vector<std::string> keys = {};
  std::vector<std::string> extra_keys = {};  // of extra_special_tokens, where it is an object
};

FileObject read_object(const std::filesystem::path& path) {
  FileObject object;
  if (!is_taken(path)) return object;
  const std::string text = read_file(path, kLargestConfig, FailAs::data_error);
  refuse_foreign_file(text, path.string());
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event != json::parse_event_t::key) return true;
    const std::string& key = parsed.get_ref<const std::string&>();
    if (depth == 1) object.keys.push_back(key);
    if (depth == 2 && object.keys.back() == kExtraKey) object.extra_keys.push_back(key);
    return true;
  };
  json& value = object.value;
  value = parse_json_tree(quote_bare_numbers(text), path.string(),
                          {.max_depth = kDeepest, .watch = watch});
  if (!value.is_object()) {
    throw DataError(
        problem(cat("holds ", value.type_name())).at(path.string()).must("hold one object"));
  }
  return object;
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

bool is_token(const json& value) {
  return value.is_string() || (value.is_object() && value.contains("content"));
}

/// Names of one file. Those that `config` has already stay.
class NamedTokens {
 public:
  NamedTokens(const FileObject& object, const std::string& file, TokenizerConfig& config)
      : object_(object.value),
        keys_(object.keys),
        extra_keys_(object.extra_keys),
        file_(file),
        config_(config) {}

  void read() {
    for (const std::string key : kTokenKeys) {
      const json* value = given(key);
      if (value != nullptr) add(key, *value);
    }
    // Names of the model's own ("image_token"), which transformers counts among them.
    for (const std::string& key : keys_) {
      const json* value = key.ends_with("_token") ? given(key) : nullptr;
      if (value != nullptr && is_token(*value)) add(key, *value);
    }
    const json* extra = given(kExtraKey);
    if (extra != nullptr && extra->is_object()) {
      for (const std::string& key : extra_keys_) {
        if (!known(key)) add(key, (*extra)[key]);
      }
      return;
    }
    // The newer name of the list hides the older one.
    const char* key = extra != nullptr && !extra->empty() ? kExtraKey : "additional_special_tokens";
    const json* list = given(key);
    if (list == nullptr || known(kExtraKey)) return;
    if (!list->is_array()) wrong_kind(file_, key, *list, "a list of tokens");
    for (const json& entry : *list) {
      config_.named.push_back(
          {kExtraKey, token_of(entry, key, file_, /*special_unless_said=*/true)});
    }
  }

 private:
  const json* given(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  bool known(const std::string& key) const {
    return std::any_of(config_.named.begin(), config_.named.end(),
                       [&](const NamedToken& named) { return named.key == key; });
  }
  void add(const std::string& key, const json& value) {
    if (known(key)) return;
    config_.named.push_back({key, token_of(value, key, file_, /*special_unless_said=*/true)});
  }

  const json& object_;
  const std::vector<std::string>& keys_;
  const std::vector<std::string>& extra_keys_;
  const std::string& file_;
  TokenizerConfig& config_;
};

/// transformers' order: the usual names first, lists last.
void sort_named(std::vector<NamedToken>& named) {
  const auto rank = [](const NamedToken& token) {
    const auto usual = std::find(std::begin(kTokenKeys), std::end(kTokenKeys), token.key);
    if (usual != std::end(kTokenKeys)) return static_cast<int>(usual - std::begin(kTokenKeys));
    return token.key == kExtraKey ? 1000 : 999;
  };
  std::stable_sort(named.begin(), named.end(),
                   [&](const NamedToken& a, const NamedToken& b) { return rank(a) < rank(b); });
}

int32_t id_of(const std::string& text, const std::string& file) {
  int32_t id = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id < 0) {
    throw DataError(
        problem(cat(kDecoderKey, " has the key \"", text, "\"")).at(file).must("have ids as keys"));
  }
  return id;
}

void add_in_order(std::map<int32_t, AddedToken> by_id, TokenizerConfig& config) {
  for (auto& [id, token] : by_id) config.added.push_back(std::move(token));
}

void read_added_tokens_decoder(const json& decoder, const std::string& file,
                               TokenizerConfig& config) {
  if (!decoder.is_object()) wrong_kind(file, kDecoderKey, decoder, "an object");
  std::map<int32_t, AddedToken> by_id;
  for (const auto& [key, value] : decoder.items()) {
    const int32_t id = id_of(key, file);
    AddedToken token =
        token_of(value, cat(kDecoderKey, ".", key), file, /*special_unless_said=*/false);
    token.id = id;
    by_id.emplace(id, token);
  }
  add_in_order(std::move(by_id), config);
}

void read_added_tokens_json(const json& added_json, const std::string& added_file,
                            TokenizerConfig& config) {
  std::map<int32_t, AddedToken> by_id;
  std::unordered_set<std::string> named;
  for (const NamedToken& entry : config.named) named.insert(entry.token.content);
  for (const auto& [content, value] : added_json.items()) {
    if (!value.is_number_integer() || value < 0 || value > INT32_MAX) {
      wrong_kind(added_file, cat("\"", content, "\""), value, "an id");
    }
    if (content.empty()) {
      throw DataError(problem("a token is an empty string").at(added_file).must("have a text"));
    }
    const bool special = named.contains(content);
    by_id.emplace(value.get<int32_t>(), AddedToken{.id = value.get<int32_t>(),
                                                   .content = content,
                                                   .special = special,
                                                   .normalized = !special});
  }
  add_in_order(std::move(by_id), config);
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

/// chat_template.jinja is the one called default; the others are called as their files are.
void read_template_files(const std::filesystem::path& folder, TokenizerConfig& config) {
  namespace fs = std::filesystem;
  const auto read = [&](const std::string& name, const fs::path& path) {
    const std::string text = read_file(path, kLargestConfig, FailAs::data_error);
    refuse_foreign_file(text, path.string());
    config.chat_templates.emplace_back(name, text);
  };
  const fs::path own = folder / "chat_template.jinja";
  if (is_taken(own)) read("default", own);
  for (const fs::path& path : entries_if_readable(folder / kTemplateFolder)) {
    if (path.extension() != ".jinja") continue;
    const std::string name = path.stem().string();
    if (name != "default" || config.chat_templates.empty()) read(name, path);
  }
}

void read_templates(const std::filesystem::path& folder, const json& config_json,
                    const std::string& config_file, TokenizerConfig& config) {
  read_template_files(folder, config);
  if (!config.chat_templates.empty()) return;
  const std::string template_file = (folder / "chat_template.json").string();
  const json own_file = read_object(template_file).value;
  if (const auto found = own_file.find("chat_template"); found != own_file.end()) {
    read_template(*found, template_file, config);
  } else if (const auto inside = config_json.find("chat_template");
             inside != config_json.end() && !inside->is_null()) {
    read_template(*inside, config_file, config);
  }
}

}  // namespace

std::string TokenizerConfig::token(const std::string& key) const {
  for (const NamedToken& entry : named) {
    if (entry.key == key) return entry.token.content;
  }
  return "";
}

BesideTokenizer TokenizerConfig::beside() const {
  BesideTokenizer beside{.added = added,
                         .split_special_tokens = split_special_tokens,
                         .add_prefix_space = add_prefix_space,
                         .sets_prefix_space = tokenizer_class.starts_with("GPT2Tokenizer"),
                         .place = place};
  std::unordered_map<std::string, size_t> at;
  for (size_t i = 0; i < beside.added.size(); ++i) at.emplace(beside.added[i].content, i);
  // sep_token comes before it and cls_token after it.
  const auto before_pad = [](const std::string& key) {
    return key == "bos_token" || key == "eos_token" || key == "unk_token" || key == "sep_token";
  };
  bool pad_named = false;
  size_t pad_at = beside.added.size();
  for (const NamedToken& entry : named) {
    pad_named = pad_named || entry.key == "pad_token";
    const auto known = at.find(entry.token.content);
    if (known != at.end()) {
      // A token that has a name is special, whatever its entry says.
      if (entry.key != kExtraKey) beside.added[known->second].special = true;
      continue;
    }
    at.emplace(entry.token.content, beside.added.size());
    beside.added.push_back(entry.token);
    if (before_pad(entry.key)) pad_at = beside.added.size();
  }
  if (!pad_named) beside.pad_token_at = pad_at;
  return beside;
}

TokenizerConfig read_tokenizer_config(const std::string& directory) {
  const std::filesystem::path folder = directory;
  const auto path = [&](const char* name) { return (folder / name).string(); };
  const std::string config_file = path("tokenizer_config.json");
  const FileObject config_object = read_object(config_file);
  const json& config_json = config_object.value;

  TokenizerConfig config;
  config.place = directory;
  if (const auto decoder = config_json.find(kDecoderKey); decoder != config_json.end()) {
    NamedTokens(config_object, config_file, config).read();
    read_added_tokens_decoder(*decoder, config_file, config);
  } else {
    const std::string map_file = path("special_tokens_map.json");
    const std::string added_file = path("added_tokens.json");
    const FileObject map_object = read_object(map_file);
    NamedTokens(map_object, map_file, config).read();
    NamedTokens(config_object, config_file, config).read();
    read_added_tokens_json(read_object(added_file).value, added_file, config);
  }
  sort_named(config.named);
  if (const auto found = config_json.find("tokenizer_class");
      found != config_json.end() && found->is_string()) {
    config.tokenizer_class = found->get<std::string>();
  }
  config.add_bos_token = optional_flag(config_json, "add_bos_token", config_file);
  config.add_eos_token = optional_flag(config_json, "add_eos_token", config_file);
  config.add_prefix_space = optional_flag(config_json, "add_prefix_space", config_file);
  config.legacy = optional_flag(config_json, "legacy", config_file);
  config.split_special_tokens =
      optional_flag(config_json, "split_special_tokens", config_file).value_or(false);
  read_templates(folder, config_json, config_file, config);
  return config;
}

}  // namespace tptrain::tokenizer
