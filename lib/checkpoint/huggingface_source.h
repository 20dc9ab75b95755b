// A Hugging Face model directory as a source of canonical tensors: the counterpart of
// huggingface_writer.h. Reads no config.json: what the model is comes as a StoredModel.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/huggingface_files.h"
#include "sharding/state_dict.h"
#include "sharding/stored_model.h"

namespace tptrain::checkpoint {

/// The weights of a directory (HuggingFaceFiles: which files), mapped: a slice costs the reading of
/// its bytes and no memory of this process but where it is put. Usable by every rank for itself,
/// and by several threads at once.
class HuggingFaceSource final : public sharding::TensorSource {
 public:
  /// Checks every tensor. Throws DataError: what HuggingFaceFiles refuses, and in one message all
  /// tensors that are missing, of another shape, of a type that is no weight's (F32, BF16, F16
  /// and F64 are), or that the model does not have. Throws InternalError where `model` contradicts
  /// itself.
  HuggingFaceSource(const std::filesystem::path& directory, sharding::StoredModel model);
  /// The same of files that are open already. `whose`: what has these tensors, in messages.
  HuggingFaceSource(HuggingFaceFiles files, sharding::StoredModel model, const std::string& whose);

  /// The canonical tensors, in the order of the StoredModel.
  std::vector<sharding::TensorInfo> tensors() const override;
  /// Reads the bytes of the slice alone, also where it is stored transposed.
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override;

  const std::filesystem::path& directory() const { return files_.directory(); }
  const HuggingFaceFiles& files() const { return files_; }
  /// The type of most elements.
  formats::Dtype stored_dtype() const { return stored_dtype_; }
  /// As what each stored tensor can be written again, by its name in the StoredModel: its own type,
  /// but F32 for F64.
  std::map<std::string, formats::Dtype> stored_dtypes() const;

 private:
  struct Found {
    const sharding::StoredTensor* tensor = nullptr;
    const formats::SafetensorsFile* file = nullptr;
    const formats::SafetensorsEntry* entry = nullptr;
  };
  const Found& found(const sharding::ShardSpec& spec) const;
  void check_all(const std::string& whose);

  HuggingFaceFiles files_;
  sharding::StoredModel model_;
  std::unordered_map<std::string, Found> found_;  // by canonical name
  formats::Dtype stored_dtype_ = formats::Dtype::f32;
};

}  // namespace tptrain::checkpoint
