#include "commands/generation_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/python_json.h"
#include "base/text.h"
#include "data/chat_rows.h"
#include "formats/strict_json.h"

namespace tptrain::apps {
namespace {

using nlohmann::ordered_json;

constexpr const char* kName = "generation_config.json";

ordered_json parsed(const std::string& text, const std::string& where) {
  return formats::parse_strict_ordered_json(quote_bare_numbers(text, kBareNumberMark), where);
}

/// The ids of eos_token_id: one, a list, or none.
ordered_json end_ids(const ordered_json& json) {
  const auto found = json.find("eos_token_id");
  if (found == json.end() || found->is_null()) return ordered_json::array();
  return found->is_array() ? *found : ordered_json::array({*found});
}

/// Of the file as it is, or, where there is none, what transformers would take from config.json.
ordered_json contents(const checkpoint::SideFile* file, const std::string& config_json) {
  if (file != nullptr) {
    if (file->copied_from.empty()) return parsed(file->text, kName);
    return parsed(read_file(file->copied_from, kMostConfigJsonBytes), file->copied_from.string());
  }
  const ordered_json config = parsed(config_json, "config.json");
  ordered_json made = ordered_json::object();
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (config.contains(key) && !config[key].is_null()) made[key] = config[key];
  }
  return made;
}

}  // namespace

std::string add_end_of_turn(const checkpoint::TrainState& state, const std::string& config_json,
                            checkpoint::HuggingFaceExport& order) {
  const auto learned = state.extra.find(data::kEndOfTurnExtra);
  if (learned == state.extra.end()) return "";
  const ordered_json end =
      ordered_json::parse(learned->second, nullptr, /*allow_exceptions=*/false);
  if (!end.is_number_integer()) return "";  // as a later version may write it
  const auto found =
      std::find_if(order.side_files.begin(), order.side_files.end(),
                   [](const checkpoint::SideFile& file) { return file.name == kName; });
  const bool is_there = found != order.side_files.end();
  ordered_json json = contents(is_there ? &*found : nullptr, config_json);
  ordered_json ids = end_ids(json);
  if (std::find(ids.begin(), ids.end(), end) != ids.end()) return "";
  ids.push_back(end);  // behind the others: the first is what transformers pads with
  json["eos_token_id"] = ids.size() == 1 ? ids.front() : ids;
  const std::string text =
      bare_numbers_again(json.dump(2, ' ', /*ensure_ascii=*/true), kBareNumberMarkEscaped);
  if (is_there) order.side_files.erase(found);
  order.side_files.push_back({.name = kName, .text = text + "\n"});
  return cat(kName, ": ", end.dump(), " is added to eos_token_id, which is now ",
             json["eos_token_id"].dump(), ": the run has learned to end its answers with it");
}

}  // namespace tptrain::apps
