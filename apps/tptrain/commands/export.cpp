// tptrain export: a checkpoint, or a Hugging Face directory, -> a Hugging Face directory; an
// adapter -> a PEFT directory, or, merged, a Hugging Face directory. One process, a few pieces of a
// tensor in memory.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
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
#include "checkpoint/directory_scan.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/huggingface_source.h"
#include "checkpoint/huggingface_writer.h"
#include "checkpoint/model_files.h"
#include "commands/commands.h"
#include "commands/generation_config.h"
#include "commands/new_model_files.h"
#include "formats/links.h"
#include "formats/strict_json.h"
#include "inference/model_directory.h"
#include "inference/model_source.h"
#include "model/decoder_config.h"
#include "model/families/family.h"
#include "tokenizer/tokenizer_files.h"
#include "tool_display.h"

namespace tptrain::apps {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

constexpr const char* kConfigName = "config.json";

// The types of weights, in the names of the command line and of config.json.
struct WeightDtype {
  Dtype dtype;
  const char* option;
  const char* config;
};
constexpr WeightDtype kWeightDtypes[] = {{Dtype::f32, "f32", "float32"},
                                         {Dtype::bf16, "bf16", "bfloat16"},
                                         {Dtype::f16, "f16", "float16"}};

std::string config_name_of(Dtype dtype) {
  for (const WeightDtype& row : kWeightDtypes) {
    if (row.dtype == dtype) return row.config;
  }
  throw InternalError(problem(cat("no config.json names ", formats::dtype_name(dtype))));
}

/// Nothing for as-stored; parse_cli has checked the name.
std::optional<Dtype> requested_dtype(const std::string& option) {
  for (const WeightDtype& row : kWeightDtypes) {
    if (option == row.option) return row.dtype;
  }
  return std::nullopt;
}

/// A config.json: its text, and the type it names, under the key of transformers 5 or of 4.
class ModelConfig {
 public:
  ModelConfig(std::string text, std::string where)
      : text_(std::move(text)),
        decoder_(model::decoder_config_from_json(text_, where)),
        json_(
            formats::parse_strict_ordered_json(quote_bare_numbers(text_, kBareNumberMark), where)),
        where_(std::move(where)) {}

  const model::DecoderConfig& decoder() const { return decoder_; }
  /// For a model whose weights hold a head of their own (inference/model_directory.h).
  void untie() {
    decoder_.tie_word_embeddings = false;
    untied_ = true;
  }
  const std::string& where() const { return where_; }

  /// What transformers takes for the type where none is named: F32.
  Dtype dtype() const {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const auto found = json_.find(key);
      if (found == json_.end() || found->is_null()) continue;
      for (const WeightDtype& row : kWeightDtypes) {
        if (*found == row.config) return row.dtype;
      }
      if (*found == "float64") return Dtype::f32;  // what is read as fp32 is written as it
      throw ConfigError(problem(cat(key, " is ", found->dump()))
                            .at(where_)
                            .must("be float32, bfloat16 or float16")
                            .remedy("Say with --dtype as what the weights are to be written."));
    }
    return Dtype::f32;
  }

  /// The text as it was, but for the type, and for a tie that is none.
  std::string text_with(Dtype dtype) const {
    nlohmann::ordered_json changed = json_;
    const std::string name = config_name_of(dtype);
    // transformers 5 writes rope_parameters and dtype, 4 rope_theta and torch_dtype.
    const bool newer = json_.contains("dtype") || json_.contains("rope_parameters");
    bool named = false;
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (!json_.contains(key)) continue;
      changed[key] = name;
      named = true;
    }
    if (!named && dtype != Dtype::f32) changed[newer ? "dtype" : "torch_dtype"] = name;
    if (untied_) changed["tie_word_embeddings"] = false;
    if (changed == json_) return text_;
    return bare_numbers_again(changed.dump(2, ' ', /*ensure_ascii=*/true), kBareNumberMarkEscaped) +
           "\n";
  }

 private:
  std::string text_;
  model::DecoderConfig decoder_;
  nlohmann::ordered_json json_;
  std::string where_;
  bool untied_ = false;
};

ModelConfig config_of(const fs::path& directory) {
  const fs::path path = directory / kConfigName;
  formats::refuse_broken_link(path);
  return ModelConfig(read_file(path, kMostConfigJsonBytes, FailAs::config_error), path.string());
}

// Writing into the place that is read from would end both.
void refuse_same_directory(const fs::path& out, const fs::path& input) {
  std::error_code ignored;
  if (!fs::equivalent(out, input, ignored)) return;
  throw ConfigError(problem("--out is the directory that is exported from")
                        .at(out.string())
                        .must("be another directory"));
}

/// The files of a model's or a run's directory that go along.
void add_side_files(const fs::path& directory, checkpoint::HuggingFaceExport& order) {
  for (const std::string& name : checkpoint::side_files(directory)) {
    order.side_files.push_back({.name = name, .copied_from = directory / name});
  }
  if (!tokenizer::has_redundant_ranks(directory.string())) return;
  std::cout << "note: tokenizer.model (tiktoken's ranks) is not copied: tokenizer.json says the "
               "same, and converters take that name for a sentencepiece model\n";
}

void say_written(const std::string& name, int64_t bytes) {
  std::cout << "written: " << name << ", " << human_bytes(bytes) << std::endl;
}

void write(const ExportCommand& command, const std::string& what,
           const sharding::TensorSource& source, const model::DecoderConfig& config,
           checkpoint::HuggingFaceExport order) {
  order.directory = command.out;
  order.max_shard_bytes = checkpoint::parse_shard_size(command.max_shard_size, "--max-shard-size");
  if (command.overwrite) order.earlier = checkpoint::EarlierExport::replace;
  order.on_file = say_written;
  const checkpoint::ExportedModel done =
      checkpoint::write_huggingface_model(source, model::stored_model(config), order);
  std::cout << "exported " << printable_line(what) << " to " << printable_line(command.out) << ": "
            << with_thousands(done.parameters) << " parameters, " << human_bytes(done.total_bytes)
            << ", " << done.weight_files.size()
            << (done.weight_files.size() == 1 ? " file" : " files") << "\n";
}

/// `directory`, with a PEFT adapter added in where one is named.
void export_directory(const ExportCommand& command, const fs::path& directory) {
  refuse_same_directory(command.out, directory);
  model::check_model_directory(directory.string());
  ModelConfig config = config_of(directory);
  for (const std::string& note : inference::decide_head(directory, config.decoder()).notes) {
    std::cout << "note: " << note << "; the exported config.json says so\n";
    config.untie();
  }
  auto weights = std::make_unique<checkpoint::HuggingFaceSource>(
      directory, model::stored_model(config.decoder()));
  checkpoint::HuggingFaceExport order;
  std::string config_text = config.text_with(config.dtype());
  if (const std::optional<Dtype> dtype = requested_dtype(command.dtype)) {
    order.dtype = *dtype;
    config_text = config.text_with(*dtype);
  } else {
    order.dtypes = weights->stored_dtypes();
    order.dtype = weights->stored_dtype() == Dtype::f64 ? Dtype::f32 : weights->stored_dtype();
  }
  order.side_files = {{.name = kConfigName, .text = config_text}};
  add_side_files(directory, order);
  const std::string& adapter = command.from.adapter;
  if (adapter.empty()) {
    return write(command, directory.string(), *weights, config.decoder(), std::move(order));
  }
  refuse_same_directory(command.out, adapter);
  const config::AdapterConfig form = adapters::read_peft_config(adapter, config.decoder());
  const adapters::MergedSource merged(std::move(weights),
                                      adapters::open_peft(adapter, config.decoder(), form),
                                      config.decoder(), form);
  write(command, cat(adapter, " on ", directory.string()), merged, config.decoder(),
        std::move(order));
}

std::unique_ptr<checkpoint::CheckpointReader> open_checkpoint(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored) && checkpoint::has_manifest(path)) {
    return std::make_unique<checkpoint::CheckpointReader>(path);  // verifies by itself
  }
  const checkpoint::NewestValid newest = checkpoint::newest_valid(path);
  for (const Problem& refused : newest.not_used) {
    std::cerr << "not used: " << refused.text() << "\n";
  }
  return std::make_unique<checkpoint::CheckpointReader>(newest.path);
}

/// config.json of the run's model files where there is one, else one that is made from what the
/// manifest says of the model, with what else belongs to it in `made`. Both must mean the same
/// model: the weights are the manifest's.
ModelConfig config_of_checkpoint(const checkpoint::CheckpointInfo& info, const fs::path& files,
                                 bool files_named_by_user, NewModelFiles& made) {
  const ModelConfig trained(info.state.model_json, info.path.string());
  const bool kept = is_taken(files / kConfigName);
  if (!kept && files_named_by_user) {
    throw ConfigError(problem("there is no config.json here")
                          .at(files.string())
                          .must("hold the config.json and tokenizer files of the model"));
  }
  if (!kept) made = new_model_files(info, files);
  if (!kept) return ModelConfig(made.config, info.path.string());
  ModelConfig config = config_of(files);
  if (config.decoder().tie_word_embeddings && !trained.decoder().tie_word_embeddings) {
    config.untie();  // its weights, which the run began with, were
  }
  model::DecoderConfig read = config.decoder();
  // Of a model whose run file left it open an earlier export says how long it was trained.
  if (trained.decoder().max_position_embeddings == 0) read.max_position_embeddings = 0;
  if (read == trained.decoder()) return config;
  throw ConfigError(problem("config.json describes another model than the checkpoint's manifest")
                        .at(config.where())
                        .must("be that of the model that was trained")
                        .remedy("Name the directory of that model with --model-files."));
}

/// base_model_name_or_path: a directory by its absolute path, as it may be read from anywhere.
std::string base_name(const checkpoint::CheckpointInfo& info, const std::string& base) {
  const std::string& name = base.empty() ? info.state.base_path : base;
  std::error_code ignored;
  return fs::is_directory(name, ignored) ? fs::absolute(name).lexically_normal().string() : name;
}

void export_adapter(const ExportCommand& command, const checkpoint::CheckpointReader& reader,
                    const config::AdapterConfig& adapter) {
  const checkpoint::CheckpointInfo& info = reader.info();
  refuse_same_directory(command.out, info.path);
  const ModelConfig trained(info.state.model_json, info.path.string());
  const adapters::ExportedAdapter done =
      adapters::write_peft(reader, trained.decoder(), adapter,
                           {.directory = command.out,
                            .dtype = requested_dtype(command.dtype).value_or(Dtype::f32),
                            .base_model = base_name(info, command.from.base),
                            .replace_earlier = command.overwrite,
                            .on_file = say_written});
  std::cout << "exported the adapter of " << printable_line(info.path.string()) << " (step "
            << info.state.step << ") to " << printable_line(command.out) << ": "
            << with_thousands(done.parameters) << " parameters, " << human_bytes(done.total_bytes)
            << "\n";
}

/// What of a checkpoint is written as a model: it, or, of an adapter's run, its sum with the base.
std::unique_ptr<sharding::TensorSource> whole_model(
    const ExportCommand& command, std::unique_ptr<checkpoint::CheckpointReader> reader,
    const std::optional<config::AdapterConfig>& adapter, const model::DecoderConfig& decoder) {
  const checkpoint::CheckpointInfo info = reader->info();
  if (adapter) {
    return std::make_unique<adapters::MergedSource>(
        adapters::open_base(info, decoder, command.from.base), std::move(reader), decoder,
        *adapter);
  }
  const char* option = command.merge ? "--merge" : "--base";
  if (!command.merge && command.from.base.empty()) return reader;
  throw ConfigError(
      problem(cat(option, " is given, and the checkpoint is not of an adapter's training"))
          .at(info.path.string())
          .must("go with an adapter")
          .remedy("The checkpoint holds the whole model: export it without the option."));
}

void export_checkpoint(const ExportCommand& command) {
  std::unique_ptr<checkpoint::CheckpointReader> reader = open_checkpoint(command.from.checkpoint);
  const checkpoint::CheckpointInfo info = reader->info();
  const std::optional<config::AdapterConfig> adapter = adapters::adapter_of(info.state);
  if (adapter && !command.merge) return export_adapter(command, *reader, *adapter);
  const bool named = !command.model_files.empty();
  const fs::path files =
      named ? fs::path(command.model_files) : checkpoint::model_files_of_checkpoint(info.path);
  refuse_same_directory(command.out, info.path);
  refuse_same_directory(command.out, files);
  NewModelFiles made;
  const ModelConfig config = config_of_checkpoint(info, files, named, made);
  for (const std::string& note : made.notes) std::cout << "note: " << note << "\n";
  checkpoint::HuggingFaceExport order;
  order.dtype = requested_dtype(command.dtype).value_or(config.dtype());
  order.side_files = {{.name = kConfigName, .text = config.text_with(order.dtype)}};
  std::error_code ignored;
  if (fs::is_directory(files, ignored)) add_side_files(files, order);
  for (checkpoint::SideFile& file : made.files) order.side_files.push_back(std::move(file));
  const std::string ending = add_end_of_turn(info.state, order.side_files.front().text, order);
  if (!ending.empty()) std::cout << "note: " << ending << "\n";
  const std::unique_ptr<sharding::TensorSource> source =
      whole_model(command, std::move(reader), adapter, config.decoder());
  write(command, cat(info.path.string(), " (step ", info.state.step, ")"), *source,
        config.decoder(), std::move(order));
}

}  // namespace

int run_export(const ExportCommand& command) {
  // A wrong size is said before gigabytes are verified.
  checkpoint::parse_shard_size(command.max_shard_size, "--max-shard-size");
  const ToolDisplay display;
  const ModelNames& from = command.from;
  if (!from.checkpoint.empty()) {
    export_checkpoint(command);
  } else if (!from.model.empty()) {
    export_directory(command, from.model);
  } else {
    export_directory(command,
                     from.base.empty() ? inference::base_of_adapter(from.adapter) : from.base);
  }
  return 0;
}

}  // namespace tptrain::apps
