// tptrain inspect: what a checkpoint holds, as its manifest says it (reading no shard: tptrain
// verify does), or what a Hugging Face directory holds.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/manifest.h"
#include "checkpoint/named_checkpoints.h"
#include "checkpoint/verify.h"
#include "commands/commands.h"
#include "commands/inspect_huggingface.h"
#include "commands/print_table.h"

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

std::string facts(const Manifest& manifest, const std::string& path,
                  const std::map<std::string, TensorRow>& rows) {
  const checkpoint::TrainState& state = manifest.state;
  int64_t bytes = 0;
  int64_t elements = 0;
  for (const checkpoint::ManifestFile& file : manifest.files) bytes += file.size_bytes;
  for (const auto& [name, row] : rows) elements += row.elements;
  std::ostringstream out;
  print_table(
      {
          {"checkpoint", shown(path)},
          {"step", cat(state.step, " (", state.updates_done, " updates, ",
                       with_thousands(state.tokens_seen), " tokens seen)")},
          {"save", cat("number ", manifest.save_sequence, ", id ", shown(manifest.save_id),
                       ", after ", shown(manifest.parent_save_id))},
          {"run", state.run.id.empty() ? std::string("-")
                                       : cat(shown(state.run.id), ", begun by ",
                                             state.run.begun_by ? word(*state.run.begun_by) : "")},
          {"layout", cat("tp ", state.tp_size, " x dp ", state.dp_size, ", ZeRO-", state.zero_stage,
                         ", global batch of ", state.global_batch_size,
                         " sequences (it loads on any other layout)")},
          {"model", shown(state.model_json)},
          {"tokenizer", cat(shown(state.tokenizer_name), ", hash ", shown(state.tokenizer_hash))},
          {"data", shown(state.data_identity)},
          {"config hash", shown(state.config_hash)},
          {"format", cat("version ", manifest.format_version)},
          {"shards", cat(manifest.files.size(), ", ", human_bytes(bytes))},
          {"tensors", cat(rows.size(), ", ", with_thousands(elements), " elements")},
      },
      out);
  return std::move(out).str();
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
    inspect_huggingface(command.path);
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
  std::cout << facts(manifest, newest.path.string(), rows) << "\n";

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
  print_names(std::filesystem::absolute(newest.path).parent_path());
  if (verdicts.size() > 1) {
    std::cout << "\nThe newest of " << verdicts.size() << "; tptrain verify lists all.\n";
  }
  return 0;
}

}  // namespace tptrain::apps
