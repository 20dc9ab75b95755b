// The manifest of a checkpoint as a value, its canonical JSON text, and the names of directories
// and shards (docs/checkpoints.md). Looks at no file.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "sharding/shard_spec.h"
#include "sharding/state_dict.h"

namespace tptrain::checkpoint {

/// Why a checkpoint is not valid: one line, without a path and without "checkpoint error". Never
/// leaves this folder.
class Refused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One line fit for a log, whatever bytes a hostile file brought: no control characters, bounded
/// length, valid UTF-8.
std::string one_line(std::string_view text);
/// The cause of any exception (base/cause.h) on one line.
std::string plain_message(const std::exception& error);

struct ManifestFile {
  int64_t size_bytes = 0;
  std::string hash;  // SHA-256 of the file in format 1, since 2 the root over its chunks
  std::vector<std::string> chunks =
      {};  // SHA-256 of each; empty where the manifest has only `hash`
};

/// The elements [begin, end) of the slice `spec`, as the tensor `key` of file number `file`.
struct ManifestPiece {
  sharding::StateKind kind = sharding::kMaster;
  sharding::ShardSpec spec;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t file = 0;
  std::string key;
};

struct Manifest {
  int64_t format_version = 2;  // that was read; what is written is the newest
  std::string save_id;
  std::string parent_save_id;
  int64_t save_sequence = 0;
  TrainState state;
  std::vector<ManifestFile> files;  // of rank 0, 1, ...; their names follow from their number
  std::vector<ManifestPiece> pieces;
};

constexpr int64_t kFormatVersion = 2;  // 1 is read as well
constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;
constexpr const char* kManifestName = "manifest.json";

/// "shard-00000-of-00004.safetensors"
std::string shard_name(int64_t file, int64_t file_count);
bool is_shard_name(std::string_view name);
/// "step-00000100"; attempt 2 and up: "step-00000100.2"
std::string step_directory_name(int64_t step, int64_t attempt);
bool is_step_directory_name(std::string_view name);
/// ".tmp-00000100-<save id>"
std::string temporary_directory_name(int64_t step, const std::string& save_id);
bool is_temporary_directory_name(std::string_view name);
/// Of such a name.
int64_t step_of_temporary_directory(std::string_view name);

/// Canonical JSON (keys sorted, no white space, one newline at the end) with its self-hash. Throws
/// CheckpointError where a text of `state` is not UTF-8.
std::string manifest_text(const Manifest& manifest);
/// Throws Refused: no JSON, a wrong self-hash, a newer format, a field missing, of a wrong
/// type or out of its bounds.
Manifest parse_manifest(std::string_view text);

/// The pieces of one shard as text, and back: what ranks send one another before a save. Throws
/// like the two above.
std::string pieces_text(const std::vector<ManifestPiece>& pieces);
std::vector<ManifestPiece> parse_pieces(std::string_view text, int64_t file_count);

}  // namespace tptrain::checkpoint
