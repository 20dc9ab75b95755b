#include "checkpoint/manifest.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/chunk_hash.h"
#include "base/error.h"
#include "base/files.h"
#include "base/hex.h"
#include "base/text.h"
#include "checkpoint/manifest_events.h"
#include "checkpoint/manifest_fields.h"
#include "checkpoint/manifest_pieces.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace {

constexpr const char* kFormatName = "tptrain-checkpoint";
constexpr int64_t kMaxFiles = 1'000'000;
constexpr int64_t kMaxSequence = int64_t{1} << 62;  // beyond it no run has got; room for the next

// A hash of the whole file; since format 2 the root over its chunks.
const char* hash_name(int64_t version) { return version == 1 ? "sha256" : "root"; }

Json state_json(const TrainState& state) {
  Json json = {{"step", state.step},
               {"updates_done", state.updates_done},
               {"tokens_seen", state.tokens_seen},
               {"model_json", state.model_json},
               {"config_hash", state.config_hash},
               {"tokenizer_name", state.tokenizer_name},
               {"tokenizer_hash", state.tokenizer_hash},
               {"data_identity", state.data_identity},
               {"global_batch_size", state.global_batch_size},
               {"dp_size", state.dp_size},
               {"tp_size", state.tp_size},
               {"zero_stage", state.zero_stage}};
  if (!state.settings.empty()) json["settings"] = state.settings;
  if (!state.extra.empty()) json["extra"] = state.extra;
  return json;
}

TrainState parse_state(const Json& value) {
  const Fields fields(value, "train_state");
  constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
  TrainState state;
  state.step = fields.integer("step", 0, kMax);
  state.updates_done = fields.integer("updates_done", 0, kMax);
  state.tokens_seen = fields.integer("tokens_seen", 0, kMax);
  state.model_json = fields.text("model_json");
  state.config_hash = fields.text("config_hash");
  state.tokenizer_name = fields.text("tokenizer_name");
  state.tokenizer_hash = fields.text("tokenizer_hash");
  state.data_identity = fields.text("data_identity");
  state.global_batch_size = fields.integer("global_batch_size", 0, kMax);
  state.dp_size = static_cast<int>(fields.integer("dp_size", 1, kMaxInt));
  state.tp_size = static_cast<int>(fields.integer("tp_size", 1, kMaxInt));
  state.zero_stage = static_cast<int>(fields.integer("zero_stage", 0, 3));
  state.settings = fields.texts("settings");
  state.extra = fields.texts("extra");
  return state;
}

// The text without its self_hash and its last newline: what that hash is of. No byte of the file
// lies outside of it, so that its spelling need not be looked at. In a text of JSON the quotes
// within are escaped, so the member cannot be mistaken.
void check_self_hash(std::string_view text) {
  constexpr std::string_view kMark = ",\"self_hash\":\"";
  constexpr size_t kDigits = 64;
  const size_t mark = text.find(kMark);
  if (mark == text.npos || text.find(kMark, mark + 1) != text.npos ||
      text.size() < mark + kMark.size() + kDigits + 2 || text.back() != '\n' ||
      text[mark + kMark.size() + kDigits] != '"') {
    throw Refused(
        "manifest has not one self_hash and a newline at its end: it is no manifest, or was "
        "changed after it was committed");
  }
  const std::string_view stated = text.substr(mark + kMark.size(), kDigits);
  const size_t rest = mark + kMark.size() + kDigits + 1;
  Sha256 hash;
  hash.update(text.substr(0, mark));
  hash.update(text.substr(rest, text.size() - rest - 1));
  const std::string actual = hash.hex();
  if (stated == actual) return;
  throw Refused(cat("manifest: SHA-256 is ", actual, ", its self_hash says ", one_line(stated),
                    ": it was changed after it was committed"));
}

void parse_chunks(const Fields& fields, const std::string& name, ManifestFile& file) {
  for (const Json& digest : fields.list("chunks")) {
    if (!digest.is_string() || !is_hex(digest.get<std::string>(), 64))
      throw Refused(cat("manifest: a chunk of ", name, " is not 64 hex digits"));
    file.chunks.push_back(digest.get<std::string>());
  }
  if (static_cast<int64_t>(file.chunks.size()) != hash_chunks_of(file.size_bytes))
    throw Refused(cat("manifest lists ", file.chunks.size(), " chunks of ", name, ", which has ",
                      hash_chunks_of(file.size_bytes)));
  if (chunk_root(file.chunks) != file.hash)
    throw Refused(cat("manifest: the root of ", name, " is not that over its chunks"));
}

std::vector<ManifestFile> parse_files(const Json& files, int64_t version) {
  const auto file_count = static_cast<int64_t>(files.size());
  if (file_count < 1 || file_count > kMaxFiles)
    throw Refused(cat("manifest names ", file_count, " files"));
  std::vector<ManifestFile> parsed;
  for (const Json& value : files) {
    const Fields file(value, "files[]");
    // The name is known beforehand, so a manifest cannot lead out of its directory.
    const std::string expected = shard_name(static_cast<int64_t>(parsed.size()), file_count);
    if (const std::string name = file.text("name"); name != expected) {
      throw Refused(
          cat("manifest names the file \"", one_line(name), "\" where ", expected, " must stand"));
    }
    parsed.push_back({file.integer("size_bytes", 0, kMax), file.text(hash_name(version))});
    if (!is_hex(parsed.back().hash, 64))
      throw Refused(
          cat("manifest: ", hash_name(version), " of ", expected, " is not 64 hex digits"));
    if (value.contains("chunks")) parse_chunks(file, expected, parsed.back());
  }
  return parsed;
}

void parse_base(const Json& manifest, TrainState& state) {
  if (!manifest.contains("base")) return;
  const Fields base(manifest.at("base"), "base");
  state.base_path = base.text("path");
  state.base_identity = base.text("identity");
}

Json files_json(const std::vector<ManifestFile>& files) {
  Json list = Json::array();
  const auto count = static_cast<int64_t>(files.size());
  for (int64_t i = 0; i < count; ++i) {
    const ManifestFile& file = files[static_cast<size_t>(i)];
    list.push_back({{"chunks", file.chunks},
                    {"name", shard_name(i, count)},
                    {"size_bytes", file.size_bytes},
                    {hash_name(kFormatVersion), file.hash}});
  }
  return list;
}

// Canonical: keys sorted, no white space. The long list is written by hand, between the keys before
// and those after it.
std::string canonical_text(const Manifest& manifest) {
  Json before = {{"files", files_json(manifest.files)},       {"format", kFormatName},
                 {"format_version", kFormatVersion},          {"hash_chunk_bytes", kHashChunkBytes},
                 {"parent_save_id", manifest.parent_save_id}, {"save_id", manifest.save_id},
                 {"save_sequence", manifest.save_sequence}};
  const TrainState& state = manifest.state;
  if (!state.run.id.empty()) before["run"] = Json::parse(identity_text(state.run));
  if (!state.base_identity.empty())
    before["base"] = {{"path", state.base_path}, {"identity", state.base_identity}};
  std::string head = before.dump();
  head.pop_back();  // its closing brace
  const std::string tail = cat(",\"tensors\":", tensors_text(manifest.pieces),
                               ",\"train_state\":", state_json(state).dump(), "}");
  return cat(head, ",\"self_hash\":\"", sha256_hex(head + tail), "\"", tail, "\n");
}

}  // namespace

std::string manifest_text(const Manifest& manifest) {
  if (manifest.save_sequence > kMaxSequence) {
    throw CheckpointError(
        problem(cat("save_sequence is ", manifest.save_sequence))
            .must(cat("be at most ", kMaxSequence))
            .remedy("No run saves so often: a manifest in run_dir/checkpoints was "
                    "changed by hand. Go on in another run_dir."));
  }
  try {
    const std::string text = canonical_text(manifest);
    if (static_cast<int64_t>(text.size()) <= kMaxManifestBytes) return text;
    throw CheckpointError(
        problem(cat("the manifest has ", human_bytes(static_cast<int64_t>(text.size()))))
            .must(cat("be no larger than ", human_bytes(kMaxManifestBytes),
                      ", which is what is read again"))
            .remedy("Save with fewer ranks."));
  } catch (const Json::exception& e) {
    throw CheckpointError(
        problem(cat("a text of the run's state is not UTF-8 (", one_line(e.what()), ")"))
            .must("be UTF-8 to stand in a manifest")
            .remedy("Look at data.tokenizer, the data paths and the model's config.json."));
  }
}

Manifest parse_manifest(std::string_view text) {
  if (text.size() > static_cast<size_t>(kMaxManifestBytes)) {
    throw Refused(cat("manifest has ", text.size(), " bytes, more than any real one (",
                      kMaxManifestBytes, ")"));
  }
  Manifest manifest;
  std::string fault_of_pieces;  // told only where the rest says that this program can read them
  const Json json = read_manifest_events(text, [&](Json&& element) {
    if (!fault_of_pieces.empty()) return;
    fault_of_pieces = problem_of([&] {
      element.contains("kinds") ? add_tensor(element, manifest.pieces)
                                : add_piece(element, manifest.pieces);
    });
  });
  const Fields fields(json, "manifest");
  if (fields.text("format") != kFormatName)
    throw Refused("manifest.json is not of a tptrain checkpoint");
  // Before the self-hash: a newer format may hash otherwise, and its user wants to be told what to
  // do.
  manifest.format_version = fields.integer("format_version", 1, kMax);
  if (manifest.format_version > kFormatVersion) {
    throw Refused(cat("manifest has format version ", manifest.format_version,
                      ", this tptrain reads up to ", kFormatVersion, ": use a newer tptrain"));
  }
  check_self_hash(text);
  if (!fault_of_pieces.empty()) throw Refused(fault_of_pieces);
  fields.list(manifest.format_version == 1 ? "pieces" : "tensors");
  if (json.contains(manifest.format_version == 1 ? "tensors" : "pieces"))
    throw Refused("manifest: its pieces are written as in another format version");
  if (manifest.format_version > 1)
    fields.integer("hash_chunk_bytes", kHashChunkBytes, kHashChunkBytes);

  manifest.save_id = fields.text("save_id");
  manifest.parent_save_id = fields.text("parent_save_id");
  if (!is_hex(manifest.save_id, 32) ||
      !(manifest.parent_save_id.empty() || is_hex(manifest.parent_save_id, 32))) {
    throw Refused("manifest: save_id or parent_save_id is not 32 hex digits");
  }
  manifest.save_sequence = fields.integer("save_sequence", 1, kMaxSequence);
  manifest.state = parse_state(fields.at("train_state"));
  if (json.contains("run")) manifest.state.run = parse_identity(json.at("run").dump());
  parse_base(json, manifest.state);
  manifest.files = parse_files(fields.list("files"), manifest.format_version);
  check_pieces(manifest.pieces, static_cast<int64_t>(manifest.files.size()));
  return manifest;
}

}  // namespace tptrain::checkpoint
