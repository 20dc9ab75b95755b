#include "checkpoint/manifest.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "formats/strict_json.h"

namespace tptrain::checkpoint {

namespace {

using Json = nlohmann::json;

constexpr const char* kFormatName = "tptrain-checkpoint";
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMaxFiles = 1'000'000;

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_hex(const std::string& text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string padded(const char* format, int64_t value) {
  std::array<char, 32> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, static_cast<long long>(value));
  return buffer.data();
}

Json piece_json(const ManifestPiece& piece) {
  return {{"tensor", piece.spec.name},
          {"kind", piece.kind},
          {"shape", piece.spec.global_shape},
          {"dim", piece.spec.dim},
          {"slice", Json::array({piece.spec.begin, piece.spec.end})},
          {"range", Json::array({piece.begin, piece.end})},
          {"file", piece.file},
          {"key", piece.key}};
}

Json pieces_json(const std::vector<ManifestPiece>& pieces) {
  Json list = Json::array();
  for (const ManifestPiece& piece : pieces) list.push_back(piece_json(piece));
  return list;
}

Json state_json(const TrainState& state) {
  return {{"step", state.step},
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
}

// Field access that refuses instead of throwing nlohmann's own errors: a manifest may hold
// anything.
class Fields {
 public:
  Fields(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object.is_object()) throw Refused(cat("manifest: ", place_, " is no object"));
  }

  const Json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) throw Refused(cat("manifest: ", place_, " lacks the field ", key));
    return *found;
  }

  std::string text(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string()) throw Refused(cat("manifest: ", place_, ".", key, " is no text"));
    return value.get<std::string>();
  }

  int64_t integer(const char* key, int64_t low, int64_t high) const {
    return integer_of(at(key), key, low, high);
  }

  const Json& list(const char* key) const {
    const Json& value = at(key);
    if (!value.is_array()) throw Refused(cat("manifest: ", place_, ".", key, " is no list"));
    return value;
  }

  std::vector<int64_t> integers(const char* key, int64_t low, int64_t high) const {
    std::vector<int64_t> values;
    for (const Json& value : list(key)) values.push_back(integer_of(value, key, low, high));
    return values;
  }

  std::pair<int64_t, int64_t> interval(const char* key) const {
    const std::vector<int64_t> values = integers(key, 0, kMax);
    if (values.size() != 2 || values[0] > values[1]) {
      throw Refused(cat("manifest: ", place_, ".", key, " is no interval [begin, end]"));
    }
    return {values[0], values[1]};
  }

 private:
  int64_t integer_of(const Json& value, const char* key, int64_t low, int64_t high) const {
    const bool fits =
        value.is_number_integer() &&
        (!value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(kMax));
    if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
      throw Refused(
          cat("manifest: ", place_, ".", key, " is no whole number from ", low, " to ", high));
    }
    return value.get<int64_t>();
  }

  const Json& object_;
  std::string place_;
};

sharding::StateKind parse_kind(std::string name) {
  if (sharding::is_state_kind(name)) return name;
  throw Refused(cat("manifest: a piece has the kind \"", name, "\", which is no name of one"));
}

// After this every product of extents of the piece fits into int64.
ManifestPiece parse_piece(const Json& value, int64_t file_count) {
  const Fields fields(value, "pieces[]");
  ManifestPiece piece;
  piece.spec.name = fields.text("tensor");
  const std::string place = cat("piece of \"", piece.spec.name, "\"");
  piece.kind = parse_kind(fields.text("kind"));
  piece.spec.global_shape = fields.integers("shape", 1, kMax);
  int64_t numel = 1;
  for (const int64_t extent : piece.spec.global_shape) {
    if (__builtin_mul_overflow(numel, extent, &numel) || numel > kMax / 4) {
      throw Refused(cat("manifest: ", place, ": its shape is larger than any memory"));
    }
  }
  const int64_t dims = static_cast<int64_t>(piece.spec.global_shape.size());
  if (dims > 8) throw Refused(cat("manifest: ", place, " has ", dims, " dimensions"));
  piece.spec.dim = fields.integer("dim", -1, dims - 1);
  std::tie(piece.spec.begin, piece.spec.end) = fields.interval("slice");
  std::tie(piece.begin, piece.end) = fields.interval("range");
  int64_t slice_numel = numel;
  if (piece.spec.whole()) {
    if (piece.spec.begin != 0 || piece.spec.end != 0) {
      throw Refused(cat("manifest: ", place, " is cut along no dimension but has a slice"));
    }
  } else {
    const int64_t extent = piece.spec.global_shape[static_cast<size_t>(piece.spec.dim)];
    if (piece.spec.begin == piece.spec.end || piece.spec.end > extent) {
      throw Refused(cat("manifest: ", place, ": slice [", piece.spec.begin, ", ", piece.spec.end,
                        ") of a dimension of ", extent));
    }
    slice_numel = numel / extent * (piece.spec.end - piece.spec.begin);
  }
  if (piece.begin == piece.end || piece.end > slice_numel) {
    throw Refused(cat("manifest: ", place, ": range [", piece.begin, ", ", piece.end,
                      ") of a slice of ", slice_numel, " elements"));
  }
  piece.file = fields.integer("file", 0, file_count - 1);
  piece.key = fields.text("key");
  return piece;
}

std::vector<ManifestPiece> parse_piece_list(const Json& list, int64_t file_count) {
  std::vector<ManifestPiece> pieces;
  pieces.reserve(list.size());
  std::set<std::pair<int64_t, std::string_view>> keys;
  for (const Json& value : list) pieces.push_back(parse_piece(value, file_count));
  for (const ManifestPiece& piece : pieces) {
    if (!keys.emplace(piece.file, piece.key).second) {
      throw Refused(
          cat("manifest: key \"", piece.key, "\" of file ", piece.file, " stands for two pieces"));
    }
  }
  return pieces;
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
  return state;
}

Json parse_json(std::string_view text) {
  if (text.size() > static_cast<size_t>(kMaxManifestBytes)) {
    throw Refused(cat("manifest has ", text.size(), " bytes, more than any real one (",
                      kMaxManifestBytes, ")"));
  }
  try {
    return formats::parse_strict_json(text, "manifest", /*max_depth=*/8);
  } catch (const Error& e) {
    throw Refused(plain_message(e));
  }
}

// Removes the field, checks it against what remains. The text must be the canonical one, so that no
// byte of the file lies outside the hash.
void check_self_hash(Json& manifest, std::string_view text) {
  if (manifest.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n" != text) {
    throw Refused("manifest is not in canonical form: it was changed after it was committed");
  }
  const std::string stated = Fields(manifest, "manifest").text("self_hash");
  manifest.erase("self_hash");
  const std::string actual = sha256_hex(manifest.dump());
  if (stated != actual) {
    throw Refused(cat("manifest: SHA-256 is ", actual, ", its self_hash says ", one_line(stated),
                      ": it was changed after it was committed"));
  }
}

}  // namespace

std::string one_line(std::string_view text) {
  constexpr size_t kMaxLine = 1000;
  std::string out;
  for (const char c : text.substr(0, kMaxLine)) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (control && (out.empty() || out.back() == ' ')) continue;
    out += control ? ' ' : c;
  }
  if (text.size() > kMaxLine) out += "...";
  // Through JSON and back: whatever is not UTF-8 (a cut character, a foreign file name) becomes the
  // replacement character.
  return Json::parse(Json(out).dump(-1, ' ', false, Json::error_handler_t::replace))
      .get<std::string>();
}

std::string plain_message(const std::exception& error) {
  std::string_view text = error.what();
  constexpr std::string_view kMark = " error: ";
  if (const size_t mark = text.find(kMark);
      dynamic_cast<const Error*>(&error) != nullptr && mark != text.npos && mark < 16) {
    text.remove_prefix(mark + kMark.size());
  }
  // It will stand inside another sentence.
  while (text.ends_with('.') || text.ends_with('\n')) text.remove_suffix(1);
  return one_line(text);
}

std::string shard_name(int64_t file, int64_t file_count) {
  return "shard-" + padded("%05lld", file) + "-of-" + padded("%05lld", file_count) + ".safetensors";
}

bool is_shard_name(std::string_view name) {
  constexpr std::string_view kHead = "shard-", kMiddle = "-of-", kTail = ".safetensors";
  if (!name.starts_with(kHead) || !name.ends_with(kTail)) return false;
  name.remove_prefix(kHead.size());
  name.remove_suffix(std::min(kTail.size(), name.size()));
  const size_t middle = name.find(kMiddle);
  return middle != name.npos && all_digits(name.substr(0, middle)) &&
         all_digits(name.substr(middle + kMiddle.size()));
}

std::string step_directory_name(int64_t step, int64_t attempt) {
  const std::string name = "step-" + padded("%08lld", step);
  return attempt <= 1 ? name : cat(name, ".", attempt);
}

bool is_step_directory_name(std::string_view name) {
  constexpr std::string_view kHead = "step-";
  if (!name.starts_with(kHead)) return false;
  name.remove_prefix(kHead.size());
  const size_t dot = name.find('.');
  if (dot == name.npos) return name.size() >= 8 && all_digits(name);
  return dot >= 8 && all_digits(name.substr(0, dot)) && all_digits(name.substr(dot + 1));
}

std::string temporary_directory_name(int64_t step, const std::string& save_id) {
  return ".tmp-" + padded("%08lld", step) + "-" + save_id;
}

bool is_temporary_directory_name(std::string_view name) {
  constexpr std::string_view kHead = ".tmp-";
  if (!name.starts_with(kHead)) return false;
  name.remove_prefix(kHead.size());
  const size_t dash = name.find('-');
  return dash != name.npos && dash >= 8 && dash <= 18 && all_digits(name.substr(0, dash)) &&
         is_hex(std::string(name.substr(dash + 1)), 32);
}

int64_t step_of_temporary_directory(std::string_view name) {
  return std::stoll(std::string(name.substr(std::string_view(".tmp-").size())));
}

std::string manifest_text(const Manifest& manifest) {
  Json files = Json::array();
  for (size_t i = 0; i < manifest.files.size(); ++i) {
    const ManifestFile& file = manifest.files[i];
    files.push_back(
        {{"name", shard_name(static_cast<int64_t>(i), static_cast<int64_t>(manifest.files.size()))},
         {"size_bytes", file.size_bytes},
         {"sha256", file.sha256}});
  }
  Json json = {{"format", kFormatName},
               {"format_version", kFormatVersion},
               {"save_id", manifest.save_id},
               {"parent_save_id", manifest.parent_save_id},
               {"save_sequence", manifest.save_sequence},
               {"train_state", state_json(manifest.state)},
               {"files", std::move(files)},
               {"pieces", pieces_json(manifest.pieces)}};
  try {
    json["self_hash"] = sha256_hex(json.dump());
    return json.dump() + "\n";
  } catch (const Json::exception& e) {
    throw CheckpointError(
        problem(cat("a text of the run's state is not UTF-8 (", one_line(e.what()), ")"))
            .must("be UTF-8 to stand in a manifest")
            .remedy("Look at data.tokenizer, the data paths and the model's config.json."));
  }
}

Manifest parse_manifest(std::string_view text) {
  Json json = parse_json(text);
  const Fields fields(json, "manifest");
  if (fields.text("format") != kFormatName)
    throw Refused("manifest.json is not of a tptrain checkpoint");
  // Before the self-hash: a newer format may hash otherwise, and its user wants to be told what to
  // do.
  if (const int64_t version = fields.integer("format_version", 1, kMax); version > kFormatVersion) {
    throw Refused(cat("manifest has format version ", version, ", this tptrain reads up to ",
                      kFormatVersion, ": use a newer tptrain"));
  }
  check_self_hash(json, text);

  Manifest manifest;
  manifest.save_id = fields.text("save_id");
  manifest.parent_save_id = fields.text("parent_save_id");
  if (!is_hex(manifest.save_id, 32) ||
      !(manifest.parent_save_id.empty() || is_hex(manifest.parent_save_id, 32))) {
    throw Refused("manifest: save_id or parent_save_id is not 32 hex digits");
  }
  manifest.save_sequence = fields.integer("save_sequence", 1, kMax - 1);
  manifest.state = parse_state(fields.at("train_state"));
  const Json& files = fields.list("files");
  const int64_t file_count = static_cast<int64_t>(files.size());
  if (file_count < 1 || file_count > kMaxFiles)
    throw Refused(cat("manifest names ", file_count, " files"));
  for (const Json& value : files) {
    const Fields file(value, "files[]");
    // The name is known beforehand, so a manifest cannot lead out of its directory.
    const std::string expected =
        shard_name(static_cast<int64_t>(manifest.files.size()), file_count);
    if (const std::string name = file.text("name"); name != expected) {
      throw Refused(
          cat("manifest names the file \"", one_line(name), "\" where ", expected, " must stand"));
    }
    manifest.files.push_back({file.integer("size_bytes", 0, kMax), file.text("sha256")});
    if (!is_hex(manifest.files.back().sha256, 64))
      throw Refused(cat("manifest: sha256 of ", expected, " is not 64 hex digits"));
  }
  manifest.pieces = parse_piece_list(fields.list("pieces"), file_count);
  return manifest;
}

std::string pieces_text(const std::vector<ManifestPiece>& pieces) {
  return pieces_json(pieces).dump();
}

std::vector<ManifestPiece> parse_pieces(std::string_view text, int64_t file_count) {
  const Json json = parse_json(text);
  if (!json.is_array()) throw Refused("pieces are no list");
  return parse_piece_list(json, file_count);
}

}  // namespace tptrain::checkpoint
