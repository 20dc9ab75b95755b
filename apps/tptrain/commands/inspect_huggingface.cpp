#include "commands/inspect_huggingface.h"

#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <system_error>
#include <vector>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/python_json.h"
#include "base/text.h"
#include "checkpoint/directory_scan.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/manifest.h"
#include "commands/model_summary.h"
#include "commands/print_table.h"
#include "formats/links.h"
#include "formats/strict_json.h"
#include "inference/model_directory.h"
#include "model/decoder_config.h"
#include "model/families/family.h"

namespace tptrain::apps {
namespace {

namespace fs = std::filesystem;
using checkpoint::one_line;
using formats::SafetensorsEntry;

// What the tables say of all tensors together.
struct Totals {
  int64_t tensors = 0;
  int64_t elements = 0;
  std::map<std::string, int64_t> by_dtype;

  void add(const SafetensorsEntry& entry) {
    ++tensors;
    elements += entry.size_bytes * 8 / formats::dtype_bits(entry.dtype);
    ++by_dtype[std::string(formats::dtype_name(entry.dtype))];
  }
  std::string text() const {
    std::vector<std::string> types;
    for (const auto& [dtype, count] : by_dtype) types.push_back(cat(count, " ", dtype));
    return cat(tensors, ", ", with_thousands(elements), " elements",
               types.empty() ? "" : cat(" (", join(types), ")"));
  }
};

Line row_of(const SafetensorsEntry& entry, const std::string& last) {
  return {one_line(entry.name), std::string(formats::dtype_name(entry.dtype)),
          cat("[", join(entry.shape), "]"), last};
}

std::string metadata_text(const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> parts;
  for (const auto& [key, text] : metadata) {
    parts.push_back(one_line(cat(key, ": ", text)).substr(0, 200));
  }
  return parts.empty() ? "none" : join(parts, "; ");
}

nlohmann::ordered_json json_of(const SafetensorsEntry& entry, const std::string& file) {
  nlohmann::ordered_json json = {{"name", entry.name},
                                 {"dtype", formats::dtype_name(entry.dtype)},
                                 {"shape", entry.shape},
                                 {"size_bytes", entry.size_bytes}};
  if (!file.empty()) json["file"] = file;
  return json;
}

void print_json(const nlohmann::ordered_json& json) {
  std::cout << json.dump(2, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace)
            << "\n";
}

void inspect_file(const fs::path& path, bool as_json) {
  const formats::SafetensorsFile file(path);
  if (as_json) {
    nlohmann::ordered_json json = {{"path", path.string()},
                                   {"size_bytes", file.size_bytes()},
                                   {"metadata", file.metadata()},
                                   {"tensors", nlohmann::ordered_json::array()}};
    for (const SafetensorsEntry& entry : file.entries())
      json["tensors"].push_back(json_of(entry, ""));
    return print_json(json);
  }
  Totals totals;
  std::vector<Line> rows = {{"tensor", "dtype", "shape", "bytes"}};
  for (const SafetensorsEntry& entry : file.entries()) {
    totals.add(entry);
    rows.push_back(row_of(entry, cat(entry.size_bytes)));
  }
  print_table({{"file", one_line(path.string())},
               {"size", human_bytes(file.size_bytes())},
               {"metadata", metadata_text(file.metadata())},
               {"tensors", totals.text()}},
              std::cout);
  std::cout << "\n";
  print_table(rows, std::cout);
}

// What config.json says, and what it says it of. A model that tptrain cannot train can be looked at
// all the same; a config.json that is broken is a broken rule.
struct ConfigSeen {
  std::string text;
  nlohmann::ordered_json whole = nullptr;  // config.json
  std::optional<model::DecoderConfig> decoder = {};
};

ConfigSeen config_seen_in(const fs::path& directory) {
  const fs::path path = directory / "config.json";
  if (!is_taken(path)) {
    return {.text = "none: the tensors are checked against no model"};
  }
  formats::refuse_broken_link(path);
  const std::string text = read_file(path, kMostConfigJsonBytes);
  auto whole = formats::parse_strict_ordered_json(quote_bare_numbers(text), path.string());
  try {
    const auto [config, notes] =
        inference::decide_head(directory, model::decoder_config_from_json(text, path.string()));
    return {.text = cat(config.model_type, ", ", with_thousands(model::parameter_count(config)),
                        " parameters: its tensors are all here, in their shapes",
                        notes.empty() ? "" : "; the head is not tied, whatever config.json says"),
            .whole = std::move(whole),
            .decoder = config};
  } catch (const ConfigError& error) {
    return {.text = cat("not a model that tptrain trains, so that the tensors are not checked "
                        "against it: ",
                        checkpoint::plain_message(error)),
            .whole = std::move(whole)};
  }
}

void print_as_json(const checkpoint::HuggingFaceFiles& files, const ConfigSeen& config) {
  nlohmann::ordered_json json = {{"path", files.directory().string()},
                                 {"config", config.whole},
                                 {"config_is", config.text},
                                 {"metadata", files.files().at(0).file.metadata()},
                                 {"tensors", nlohmann::ordered_json::array()}};
  for (const auto& [name, file] : files.files()) {
    for (const SafetensorsEntry& entry : file.entries())
      json["tensors"].push_back(json_of(entry, name));
  }
  print_json(json);
}

void print(const checkpoint::HuggingFaceFiles& files, const ConfigSeen& config, bool as_json) {
  if (as_json) return print_as_json(files, config);
  Totals totals;
  std::vector<Line> rows = {{"tensor", "dtype", "shape", "file"}};
  int64_t bytes = 0;
  for (const auto& [name, file] : files.files()) {
    bytes += file.size_bytes();
    for (const SafetensorsEntry& entry : file.entries()) {
      totals.add(entry);
      rows.push_back(row_of(entry, name));
    }
  }
  std::string index = "none";
  if (files.index()) {
    index = cat(checkpoint::kModelIndexName, ", and the files agree");
    if (files.index()->total_size) index += cat("; total_size ", *files.index()->total_size);
  } else if (files.ignored_index()) {
    index = cat("not used: with ", checkpoint::kModelFileName, " there, no reader looks at it");
  }
  std::vector<Line> facts = {{"directory", one_line(files.directory().string())},
                             {"config", config.text}};
  if (config.decoder) {
    const std::vector<Line> shape = model_summary(*config.decoder);
    facts.insert(facts.end(), shape.begin() + 1, shape.end());  // config says the model
  }
  facts.push_back({"files", cat(files.files().size(), ", ", human_bytes(bytes))});
  facts.push_back({"index", index});
  facts.push_back({"metadata", metadata_text(files.files().at(0).file.metadata())});
  facts.push_back({"tensors", totals.text()});
  print_table(facts, std::cout);
  std::cout << "\n";
  print_table(rows, std::cout);
}

void inspect_directory(const fs::path& directory, bool as_json) {
  const ConfigSeen config = config_seen_in(directory);
  if (!config.decoder) {
    print(checkpoint::HuggingFaceFiles(directory), config, as_json);
    return;
  }
  const checkpoint::HuggingFaceSource source(directory, model::stored_model(*config.decoder));
  print(source.files(), config, as_json);
}

}  // namespace

bool is_huggingface_path(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return path.ends_with(".safetensors");
  if (checkpoint::has_manifest(path)) return false;
  return checkpoint::has_huggingface_weights(path) || fs::exists(fs::path(path) / "config.json");
}

void inspect_huggingface(const std::string& path, bool json) {
  try {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
      inspect_directory(path, json);
    } else {
      inspect_file(path, json);
    }
  } catch (const DataError& error) {
    // To a training run these are unreadable data (3); here they are what was asked about.
    const std::string message = error.what();
    const size_t kind = message.find("data error: ");
    throw Error(ExitCode::checkpoint,
                kind == 0 ? "checkpoint error: " + message.substr(12) : message);
  }
}

}  // namespace tptrain::apps
