#include "inference/model_source.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "adapters/adapter_run.h"
#include "adapters/merged_source.h"
#include "adapters/peft_files.h"
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

/// `reader`, or, of an adapter's run, that on its base.
std::unique_ptr<sharding::TensorSource> whole_model(
    std::unique_ptr<checkpoint::CheckpointReader> reader, const model::DecoderConfig& decoder,
    const std::string& base) {
  const checkpoint::CheckpointInfo info = reader->info();
  if (const auto adapter = adapters::adapter_of(info.state)) {
    return std::make_unique<adapters::MergedSource>(adapters::open_base(info, decoder, base),
                                                    std::move(reader), decoder, *adapter);
  }
  if (base.empty()) return reader;
  throw ConfigError(problem("--base is given, and the checkpoint is not of an adapter's training")
                        .at(info.path.string())
                        .must("go with an adapter"));
}

void open_checkpoint(const fs::path& path, const ModelChoice& choice, OpenedModel& model) {
  auto reader = std::make_unique<checkpoint::CheckpointReader>(path);
  const checkpoint::CheckpointInfo info = reader->info();
  model.config = model::decoder_config_from_json(info.state.model_json, info.path.string());
  model.parameters = whole_model(std::move(reader), model.config, choice.base);
  model.description = cat(printable_line(info.path.string()), ", step ", info.state.step);
  if (choice.tokenizer.empty()) {
    use_tokenizer_of(info, model);
  } else {
    model.tokenizer = tokenizer::make_tokenizer(choice.tokenizer);
    model.tokenizer_path = choice.tokenizer;
  }
  model.stop_ids =
      named_stop_ids(checkpoint::model_files_of_checkpoint(info.path), model.config.vocab_size);
}

void open_tokenizer(const std::string& directory, const std::string& chosen, OpenedModel& model) {
  model::check_model_directory(directory);
  model.tokenizer_path = chosen.empty() ? directory : chosen;
  model.tokenizer = tokenizer::make_tokenizer(model.tokenizer_path);
}

void open_directory(const std::string& directory, const std::string& adapter, OpenedModel& model) {
  model.parameters =
      std::make_unique<checkpoint::HuggingFaceSource>(directory, model::stored_model(model.config));
  model.description = printable_line(directory);
  model.stop_ids = named_stop_ids(directory, model.config.vocab_size);
  if (adapter.empty()) return;
  const config::AdapterConfig form = adapters::read_peft_config(adapter, model.config);
  model.parameters = std::make_unique<adapters::MergedSource>(
      std::move(model.parameters), adapters::open_peft(adapter, model.config, form), model.config,
      form);
  model.description = cat(printable_line(adapter), " on ", model.description);
}

}  // namespace

std::string base_of_adapter(const std::string& adapter) {
  const std::string named = adapters::peft_config_of(adapter).base_model;
  std::error_code ignored;
  if (!named.empty() && fs::is_directory(named, ignored)) return named;
  throw ConfigError(
      problem(named.empty() ? std::string("adapter_config.json names no base model")
                            : cat("the base model that adapter_config.json names is no directory "
                                  "here: ",
                                  printable_line(named)))
          .at(adapter)
          .remedy("Name the directory of the base model with --base."));
}

OpenedModel open_model(comm::ControlGroup& group, const ModelChoice& choice) {
  OpenedModel model;
  std::string path;
  std::string directory = choice.model;
  if (!choice.adapter.empty()) {
    comm::agree(group, [&] {
      directory = choice.base.empty() ? base_of_adapter(choice.adapter) : choice.base;
    });
  }
  if (directory.empty()) {
    comm::agree(group, [&] {
      if (group.rank() != 0) return;
      const checkpoint::NewestValid newest = checkpoint::newest_valid(choice.checkpoint);
      path = newest.path.string();
      for (const Problem& refused : newest.not_used) model.not_used.push_back(refused.text());
    });
    path = group.broadcast(path, 0);
  }
  if (!directory.empty()) {
    comm::agree(group, [&] { open_tokenizer(directory, choice.tokenizer, model); });
    DecidedModel decided = decide_model(
        group, {.path = directory, .architecture = {}, .init = config::Init::pretrained},
        model.tokenizer->vocab_size());
    model.config = std::move(decided.decoder);
    if (group.rank() == 0) model.notes = std::move(decided.notes);
  }
  comm::agree(group, [&] {
    if (directory.empty()) {
      open_checkpoint(path, choice, model);
    } else {
      open_directory(directory, choice.adapter, model);
    }
    const int32_t end = model.tokenizer->end_of_text();
    if (end >= 0 && end < model.config.vocab_size) model.stop_ids.push_back(end);
  });
  return model;
}

}  // namespace tptrain::inference
