// The shards of one checkpoint, mapped, and the way from a wanted slice to the bytes. Verifies no
// hash: who builds one has done so, or does it before each read.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/tensor_index.h"
#include "formats/safetensors.h"

namespace tptrain::checkpoint {

class ShardSet {
 public:
  /// Maps every shard. Throws CheckpointError where one is gone or no longer has the pieces of the
  /// manifest; Refused by TensorIndex.
  ShardSet(const std::filesystem::path& directory, const Manifest& manifest);
  /// Called before bytes [begin, end) of a file are read.
  using BeforeRead = std::function<void(int64_t file, int64_t begin, int64_t end)>;
  void set_before_read(BeforeRead before_read) { before_read_ = std::move(before_read); }

  const TensorIndex& index() const { return index_; }
  const formats::SafetensorsFile& file(int64_t number) const {
    return files_[static_cast<size_t>(number)];
  }
  /// Throws CheckpointError where the checkpoint lacks the tensor or this kind of it, or has it in
  /// another shape.
  void require(std::string_view kind, const sharding::ShardSpec& spec) const;
  /// The elements [begin, end) of the slice into `out`, end - begin floats. Throws like require().
  void read(std::string_view kind, const sharding::ShardSpec& spec, int64_t begin, int64_t end,
            float* out) const;

 private:
  std::filesystem::path directory_;
  TensorIndex index_;
  std::vector<formats::SafetensorsFile> files_;
  struct PieceBytes {
    int64_t file = 0;
    int64_t offset = 0;  // in the file
  };
  std::vector<PieceBytes> piece_bytes_;  // by number of the piece in the manifest
  BeforeRead before_read_;
};

}  // namespace tptrain::checkpoint
