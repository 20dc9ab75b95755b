// tptrain inspect: what a checkpoint holds, as its manifest says it (reading no shard: tptrain
// verify does), or what a Hugging Face directory holds.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "adapters/adapter_run.h"
#include "base/error.h"
#include "base/text.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/manifest.h"
#include "checkpoint/named_checkpoints.h"
#include "checkpoint/verify.h"
#include "commands/commands.h"
#include "commands/inspect_huggingface.h"
#include "commands/model_summary.h"
#include "commands/print_table.h"
#include "model/decoder_config.h"

namespace tptrain::apps {
namespace {

using checkpoint::Manifest;

// One global tensor: how it is cut, and how many pieces there are of each kind.
struct TensorRow {
  std::vector<int64_t> shape;
  int64_t elements = 1;
  int64_t cut_dim = -1;  // -1: not cut over tp
  std::map<sharding::StateKind, int64_t> pieces = {};
};

std::map<std::string, TensorRow> rows_of(const Manifest& manifest) {
  std::map<std::string, TensorRow> rows;
  for (const checkpoint::ManifestPiece& piece : manifest.pieces) {
    TensorRow& row = rows[piece.spec.name];
    row.shape = piece.spec.global_shape;
    row.elements = piece.spec.global_numel();
    row.cut_dim = std::max(row.cut_dim, piece.spec.dim);
    ++row.pieces[piece.kind];
  }
  return rows;
}

// Texts come from a file: no control character of theirs reaches the terminal.
std::string shown(const std::string& text) {
  return text.empty() ? "-" : checkpoint::one_line(text);
}

/// The model in the words of a reader; as it stands there, where this program cannot read it.
std::vector<Line> model_rows(const checkpoint::TrainState& state) {
  try {
    return model_summary(model::decoder_config_from_json(state.model_json, "the manifest"));
  } catch (const ConfigError& error) {
    return {{"model", cat(shown(state.model_json), " (", checkpoint::plain_message(error), ")")}};
  }
}

std::vector<Line> adapter_rows(const checkpoint::TrainState& state) {
  std::vector<Line> rows;
  try {
    if (const auto adapter = adapters::adapter_of(state)) {
      rows.push_back({"adapter", cat("LoRA of rank ", adapter->rank, ", alpha ", adapter->alpha,
                                     ", beside ", shown(join(adapter->targets)))});
    }
  } catch (const ConfigError& error) {
    rows.push_back({"adapter", cat("cannot be read: ", checkpoint::plain_message(error))});
  }
  if (!state.base_path.empty()) rows.push_back({"begun with", shown(state.base_path)});
  return rows;
}

int64_t bytes_of(const Manifest& manifest) {
  int64_t bytes = 0;
  for (const checkpoint::ManifestFile& file : manifest.files) bytes += file.size_bytes;
  return bytes;
}

std::string facts(const Manifest& manifest, const std::string& path,
                  const std::map<std::string, TensorRow>& rows) {
  const checkpoint::TrainState& state = manifest.state;
  int64_t elements = 0;
  for (const auto& [name, row] : rows) elements += row.elements;
  std::ostringstream out;
  std::vector<Line> lines = {
      {"checkpoint", shown(path)},
      {"step", cat(state.step, " (", state.updates_done, " updates, ",
                   with_thousands(state.tokens_seen), " tokens seen)")},
      {"save", cat("number ", manifest.save_sequence, ", id ", shown(manifest.save_id), ", after ",
                   shown(manifest.parent_save_id))},
      {"run", state.run.id.empty() ? std::string("-")
                                   : cat(shown(state.run.id), ", begun by ",
                                         state.run.begun_by ? word(*state.run.begun_by) : "")},
      {"layout", cat("tp ", state.tp_size, " x dp ", state.dp_size, ", ZeRO-", state.zero_stage,
                     ", global batch of ", state.global_batch_size,
                     " sequences (it loads on any other layout)")},
  };
  for (const std::vector<Line>& more : {model_rows(state), adapter_rows(state)})
    lines.insert(lines.end(), more.begin(), more.end());
  const std::vector<Line> rest = {
      {"tokenizer", cat(shown(state.tokenizer_name), ", hash ", shown(state.tokenizer_hash))},
      {"data", shown(state.data_identity)},
      {"config hash", shown(state.config_hash)},
      {"format", cat("version ", manifest.format_version)},
      {"shards", cat(manifest.files.size(), ", ", human_bytes(bytes_of(manifest)))},
      {"tensors", cat(rows.size(), ", ", with_thousands(elements), " elements")},
  };
  lines.insert(lines.end(), rest.begin(), rest.end());
  print_table(lines, out);
  return std::move(out).str();
}

/// A text of the manifest that is JSON, as JSON.
nlohmann::ordered_json json_in(const std::string& text) {
  auto parsed = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  return parsed.is_discarded() ? nlohmann::ordered_json(text) : parsed;
}

nlohmann::ordered_json json_of(const Manifest& manifest, const std::string& path,
                               const std::map<std::string, TensorRow>& rows) {
  const checkpoint::TrainState& state = manifest.state;
  nlohmann::ordered_json json = {{"path", path},
                                 {"format_version", manifest.format_version},
                                 {"save_id", manifest.save_id},
                                 {"parent_save_id", manifest.parent_save_id},
                                 {"save_sequence", manifest.save_sequence},
                                 {"step", state.step},
                                 {"updates_done", state.updates_done},
                                 {"tokens_seen", state.tokens_seen},
                                 {"run", state.run.id},
                                 {"tp_size", state.tp_size},
                                 {"dp_size", state.dp_size},
                                 {"zero_stage", state.zero_stage},
                                 {"global_batch_size", state.global_batch_size},
                                 {"model", json_in(state.model_json)},
                                 {"base_path", state.base_path},
                                 {"tokenizer", state.tokenizer_name},
                                 {"tokenizer_hash", state.tokenizer_hash},
                                 {"data_identity", state.data_identity},
                                 {"config_hash", state.config_hash},
                                 {"settings", state.settings},
                                 {"extra", state.extra}};
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    json["shards"].push_back(
        {{"name", checkpoint::shard_name(static_cast<int64_t>(i),
                                         static_cast<int64_t>(manifest.files.size()))},
         {"size_bytes", manifest.files[i].size_bytes},
         {"hash", manifest.files[i].hash}});
  }
  for (const auto& [name, row] : rows) {
    nlohmann::ordered_json tensor = {{"name", name}, {"shape", row.shape}};
    tensor["cut_dim"] =
        row.cut_dim < 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(row.cut_dim);
    for (const auto& [kind, count] : row.pieces) tensor["pieces"][kind] = count;
    json["tensors"].push_back(std::move(tensor));
  }
  return json;
}

void print_tensors(const std::map<std::string, TensorRow>& rows) {
  std::vector<Line> lines = {{"tensor", "shape", "cut over tp"}};
  std::vector<sharding::StateKind> kinds;
  for (const auto& [name, row] : rows) {
    for (const auto& [kind, count] : row.pieces) {
      if (std::ranges::find(kinds, kind) == kinds.end()) kinds.push_back(kind);
    }
  }
  std::ranges::sort(kinds, sharding::kind_before);
  for (const sharding::StateKind& kind : kinds) lines[0].push_back(cat(kind, " pieces"));
  for (const auto& [name, row] : rows) {
    lines.push_back({shown(name), cat("[", join(row.shape), "]"),
                     row.cut_dim < 0 ? "no" : cat("dim ", row.cut_dim)});
    for (const sharding::StateKind& kind : kinds) {
      const auto found = row.pieces.find(kind);
      lines.back().push_back(found == row.pieces.end() ? "-" : cat(found->second));
    }
  }
  print_table(lines, std::cout);
}

// RUN/last and RUN/best, where a run says which its best is.
void print_names(const std::filesystem::path& directory) {
  const auto evaluations = checkpoint::read_best(directory);
  if (!evaluations) return;
  const auto all = checkpoint::list_checkpoints(directory, checkpoint::Depth::manifest);
  if (all.empty()) return;
  std::cout << "\n";
  const auto name = [](const std::filesystem::path& path) {
    return shown(path.filename().string());
  };
  std::vector<Line> lines = {{"last", name(all.front().path), ""}};
  if (const auto best = checkpoint::find_best(all, *evaluations))
    lines.push_back({"best", name(best->path), cat("eval_loss ", fixed(best->evaluation.loss, 4))});
  print_table(lines, std::cout);
}

}  // namespace

int run_inspect(const InspectCommand& command) {
  if (is_huggingface_path(command.path)) {
    inspect_huggingface(command.path, command.json);
    return 0;
  }
  const auto verdicts = checkpoint::find_checkpoints(command.path, checkpoint::Depth::manifest);
  const checkpoint::Verdict& newest = verdicts.front();
  if (!newest.info) {
    throw CheckpointError(problem(newest.problem)
                              .at(newest.path.string())
                              .remedy("tptrain verify " + command.path + " looks at all of it."));
  }
  const Manifest manifest = checkpoint::read_manifest(newest.path);
  const auto rows = rows_of(manifest);
  if (command.json) {
    std::cout << json_of(manifest, newest.path.string(), rows)
                     .dump(2, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace)
              << "\n";
    return 0;
  }
  std::cout << facts(manifest, newest.path.string(), rows) << "\n";
  print_tensors(rows);
  print_names(std::filesystem::absolute(newest.path).parent_path());
  if (verdicts.size() > 1) {
    std::cout << "\nThe newest of " << verdicts.size() << "; tptrain verify lists all.\n";
  }
  return 0;
}

}  // namespace tptrain::apps
