#include "commands/new_model_files.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/python_json.h"
#include "base/text.h"
#include "config/parse.h"
#include "model/decoder_config.h"
#include "tokenizer/byte_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace tptrain::apps {
namespace {

namespace fs = std::filesystem;

struct Found {
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::string place;  // its folder or file; "bytes"
};

/// The tokenizer of the training, by its hash: of the files that were kept, or where it was then.
std::optional<Found> tokenizer_of(const checkpoint::TrainState& state, const fs::path& kept) {
  std::error_code ignored;
  std::vector<std::string> places;
  if (state.tokenizer_name != "bytes" && fs::is_directory(kept, ignored)) {
    places.push_back(kept.string());
  }
  places.push_back(state.tokenizer_name);
  for (const std::string& place : places) {
    try {
      Found found{tokenizer::make_tokenizer(place), place};
      if (found.tokenizer->hash() == state.tokenizer_hash) return found;
    } catch (const Error&) {  // not there any more, which is noted
    }
  }
  return std::nullopt;
}

/// -1: none.
int32_t begin_of_text(const Found& found) {
  if (found.place == "bytes") return -1;
  const fs::path place = found.place;
  std::error_code ignored;
  const fs::path folder = fs::is_directory(place, ignored) ? place : place.parent_path();
  const std::string name =
      tokenizer::read_tokenizer_config(folder.empty() ? "." : folder.string()).token("bos_token");
  if (!name.empty()) return found.tokenizer->find(name);
  const std::vector<int32_t> empty = found.tokenizer->encode("", {.add_special = true});
  return empty.empty() || empty.front() == found.tokenizer->end_of_text() ? -1 : empty.front();
}

/// The longest sequence that the run trains on; 0: not known.
int64_t seq_length_of(const fs::path& run_dir) {
  try {
    const fs::path file = run_dir / "resolved_config.yaml";
    const std::string text = read_file(file, kMostConfigJsonBytes);
    return config::parse_run_config(text, file.string(), {}).config.train.seq_length;
  } catch (const Error&) {  // moved without its run, which is noted
    return 0;
  }
}

nlohmann::ordered_json id_or_null(int32_t id) {
  return id < 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(id);
}

}  // namespace

NewModelFiles new_model_files(const checkpoint::CheckpointInfo& info, const fs::path& model_files) {
  NewModelFiles made;
  const model::DecoderConfig decoder =
      model::decoder_config_from_json(info.state.model_json, info.path.string());
  auto config = nlohmann::ordered_json::parse(model::to_json(decoder));

  const bool says_positions = decoder.max_position_embeddings > 0;
  const int64_t seq_length = says_positions ? 0 : seq_length_of(model_files.parent_path());
  if (seq_length > 0) config["max_position_embeddings"] = seq_length;
  if (!says_positions && seq_length == 0) {
    made.notes.push_back(
        "config.json has no max_position_embeddings (no resolved_config.yaml lies beside the "
        "checkpoints): transformers will take its own default, set the run's seq_length");
  }

  const std::optional<Found> found = tokenizer_of(info.state, model_files);
  if (found) {
    const int32_t begin = begin_of_text(*found);
    const int32_t end = found->tokenizer->end_of_text();
    config["bos_token_id"] = id_or_null(begin);
    config["eos_token_id"] = id_or_null(end);
    nlohmann::ordered_json generation = nlohmann::ordered_json::object();
    if (begin >= 0) generation["bos_token_id"] = begin;
    if (end >= 0) generation["eos_token_id"] = end;
    made.files.push_back({.name = "generation_config.json", .text = generation.dump(2) + "\n"});
    if (found->place == "bytes") {
      for (const auto& [name, text] : tokenizer::byte_tokenizer_files()) {
        made.files.push_back({.name = name, .text = text});
      }
    }
  } else {
    made.notes.push_back(
        cat("config.json has no eos_token_id and there are no tokenizer files: the tokenizer '",
            info.state.tokenizer_name, "' is not where it was, or is another one now"));
  }
  made.config = config.dump(2) + "\n";
  return made;
}

}  // namespace tptrain::apps
