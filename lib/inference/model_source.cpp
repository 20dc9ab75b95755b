#include "inference/model_source.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/printable.h"
#include "base/python_json.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/model_files.h"
#include "formats/strict_json.h"
#include "inference/model_directory.h"
#include "model/families/family.h"

namespace tptrain::inference {

namespace fs = std::filesystem;

namespace {

/// The ids of eos_token_id in generation_config.json, or else in config.json: one, a list, or none.
std::vector<int32_t> named_stop_ids(const fs::path& directory, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (const char* name : {"generation_config.json", "config.json"}) {
    const fs::path file = directory / name;
    if (!is_file(file)) continue;
    const std::string text = read_file(file, kMostConfigJsonBytes);
    const nlohmann::json root = formats::parse_strict_json(quote_bare_numbers(text), file.string());
    const auto found = root.find("eos_token_id");
    if (!root.is_object() || found == root.end() || found->is_null()) continue;
    const nlohmann::json list = found->is_array() ? *found : nlohmann::json::array({*found});
    for (const nlohmann::json& id : list) {
      const bool in_vocabulary =
          id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < vocab_size;
      if (!in_vocabulary) {
        throw DataError(problem(cat("eos_token_id holds ", id.dump()))
                            .at(file.string())
                            .must(cat("be ids below vocab_size, ", vocab_size))
                            .remedy("Copy the model's file again, or remove the key."));
      }
      ids.push_back(id.get<int32_t>());
    }
    return ids;
  }
  return ids;
}

/// The tokenizer a checkpoint was trained with: of the files the run kept, or where it was then.
void use_tokenizer_of(const checkpoint::CheckpointInfo& info, OpenedModel& model) {
  const std::string& name = info.state.tokenizer_name;
  const std::string kept = checkpoint::model_files_of_checkpoint(info.path).string();
  std::vector<std::string> places;
  std::error_code ignored;
  if (name != "bytes" && fs::is_directory(kept, ignored)) places.push_back(kept);
  places.push_back(name);
  std::vector<Problem> refused;
  for (const std::string& place : places) {
    try {
      model.tokenizer = tokenizer::make_tokenizer(place);
    } catch (const Error& error) {
      refused.push_back(problem(error.what()).at(place));
      continue;
    }
    model.tokenizer_path = place;
    if (model.tokenizer->hash() == info.state.tokenizer_hash) return;
    refused.push_back(
        problem(cat("tokenizer '", place, "' has the hash ", model.tokenizer->hash(),
                    ", the manifest says ", info.state.tokenizer_hash))
            .at(info.path.string())
            .must("be the tokenizer that the model was trained with")
            .remedy("Put the files of that tokenizer back: with another one the ids mean other "
                    "text. --tokenizer names where they are now."));
  }
  throw CheckpointError(refused);
}

void open_checkpoint(const fs::path& path, const std::string& tokenizer, OpenedModel& model) {
  auto reader = std::make_unique<checkpoint::CheckpointReader>(path);
  const checkpoint::CheckpointInfo info = reader->info();
  model.config = model::decoder_config_from_json(info.state.model_json, info.path.string());
  model.parameters = std::move(reader);
  model.description = cat(printable_line(info.path.string()), ", step ", info.state.step);
  if (tokenizer.empty()) {
    use_tokenizer_of(info, model);
  } else {
    model.tokenizer = tokenizer::make_tokenizer(tokenizer);
    model.tokenizer_path = tokenizer;
  }
  model.stop_ids =
      named_stop_ids(checkpoint::model_files_of_checkpoint(info.path), model.config.vocab_size);
}

void open_tokenizer(const ModelChoice& choice, OpenedModel& model) {
  model::check_model_directory(choice.model);
  model.tokenizer_path = choice.tokenizer.empty() ? choice.model : choice.tokenizer;
  model.tokenizer = tokenizer::make_tokenizer(model.tokenizer_path);
}

void open_directory(const ModelChoice& choice, OpenedModel& model) {
  model.parameters = std::make_unique<checkpoint::HuggingFaceSource>(
      choice.model, model::stored_model(model.config));
  model.description = printable_line(choice.model);
  model.stop_ids = named_stop_ids(choice.model, model.config.vocab_size);
}

}  // namespace

OpenedModel open_model(comm::ControlGroup& group, const ModelChoice& choice) {
  OpenedModel model;
  std::string path;
  if (choice.model.empty()) {
    comm::agree(group, [&] {
      if (group.rank() != 0) return;
      const checkpoint::NewestValid newest = checkpoint::newest_valid(choice.checkpoint);
      path = newest.path.string();
      for (const Problem& refused : newest.not_used) model.not_used.push_back(refused.text());
    });
    path = group.broadcast(path, 0);
  }
  if (!choice.model.empty()) {
    comm::agree(group, [&] { open_tokenizer(choice, model); });
    DecidedModel decided = decide_model(
        group, {.path = choice.model, .architecture = {}, .init = config::Init::pretrained},
        model.tokenizer->vocab_size());
    model.config = std::move(decided.decoder);
    if (group.rank() == 0) model.notes = std::move(decided.notes);
  }
  comm::agree(group, [&] {
    if (choice.model.empty()) {
      open_checkpoint(path, choice.tokenizer, model);
    } else {
      open_directory(choice, model);
    }
    const int32_t end = model.tokenizer->end_of_text();
    if (end >= 0 && end < model.config.vocab_size) model.stop_ids.push_back(end);
  });
  return model;
}

}  // namespace tptrain::inference
