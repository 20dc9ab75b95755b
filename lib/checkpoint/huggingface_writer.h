// Any source of canonical tensors -> a Hugging Face model directory: the counterpart of
// huggingface_source.h. Streams: no tensor is ever whole in memory. Knows no model: which tensors,
// under which names, comes as a StoredModel (so a tied head is left out and padding does not
// exist).
//
// A directory counts as a model once it has config.json and model.safetensors or its index. So all
// files are written under temporary names and synced; with an earlier export there, its config.json
// and entry file are removed first; then the shards get their names, the index after them, and
// config.json last. Whatever interrupts this leaves no directory that is taken for a whole model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "sharding/state_dict.h"
#include "sharding/stored_model.h"

namespace tptrain::checkpoint {

/// What to do about the files of an earlier export.
enum class EarlierExport { refuse, replace };

/// A file beside the weights: its text, or a file to be copied.
struct SideFile {
  std::string name;
  std::string text = {};
  std::filesystem::path copied_from = {};  // empty: `text` it is
};

constexpr int64_t kDefaultShardBytes = 5'000'000'000;  // transformers' "5GB"

/// By which a reader knows that a directory is whole, and finds its weights.
struct ExportNames {
  std::string config = "config.json";
  std::string weights = "model";  // model.safetensors, model-00001-of-00002.safetensors, ..
};

struct HuggingFaceExport {
  std::filesystem::path directory;  // made where it is missing
  ExportNames names = {};
  formats::Dtype dtype = formats::Dtype::f32;
  /// Stored names that get a type of their own.
  std::map<std::string, formats::Dtype> dtypes = {};
  int64_t max_shard_bytes = kDefaultShardBytes;  // of tensors; one that is larger is alone
  EarlierExport earlier = EarlierExport::refuse;
  std::vector<SideFile> side_files = {};  // config.json among them
  /// Called after each weight file is written, under the name it will have.
  std::function<void(const std::string& name, int64_t bytes)> on_file = {};
  /// For tests: called after each step ("file written", "entry removed", "file named", "committed",
  /// "stale removed"); what it throws is a failure there.
  std::function<void(std::string_view)> fault_point = {};
};

struct ExportedModel {
  std::vector<std::string> weight_files;
  int64_t total_bytes = 0;  // of tensors
  int64_t parameters = 0;
};

/// Writes the model. Throws ConfigError (files of an earlier export, or others of these names, are
/// there and may not be replaced), CheckpointError (files, space; whatever the source throws),
/// InternalError (`model` contradicts itself, a type that is no weight's). After an error nothing
/// of this export remains but what was already named.
ExportedModel write_huggingface_model(const sharding::TensorSource& source,
                                      const sharding::StoredModel& model,
                                      const HuggingFaceExport& order);

/// "5GB", "500MB", "300KB" (decimal, as transformers reads them), "4GiB" ..., or plain bytes.
/// Throws ConfigError naming `option`.
int64_t parse_shard_size(std::string_view text, const std::string& option);

}  // namespace tptrain::checkpoint
