#include "checkpoint/shard_set.h"

#include <cstring>

#include "base/error.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain::checkpoint {

namespace {

// To its reader a file of the run is data; here it is a checkpoint's, whatever fails.
formats::SafetensorsFile open_shard(const std::filesystem::path& path) {
  try {
    return formats::SafetensorsFile(path);
  } catch (const DataError& error) {
    throw CheckpointError(problem(plain_message(error)));
  }
}

}  // namespace

ShardSet::ShardSet(const std::filesystem::path& directory, const Manifest& manifest)
    : directory_(directory), index_(manifest.pieces) {
  const auto count = static_cast<int64_t>(manifest.files.size());
  for (int64_t file = 0; file < count; ++file)
    files_.push_back(open_shard(directory / shard_name(file, count)));
  for (const ManifestPiece& piece : manifest.pieces) {
    const formats::SafetensorsFile& file = files_[static_cast<size_t>(piece.file)];
    const formats::SafetensorsEntry* entry = file.find(piece.key);
    if (entry == nullptr ||
        entry->size_bytes != (piece.end - piece.begin) * static_cast<int64_t>(sizeof(float))) {
      throw CheckpointError(
          problem(cat("tensor \"", one_line(piece.key), "\" is not what the manifest says"))
              .at((directory / shard_name(piece.file, count)).string())
              .remedy("The file changed since it was verified: check the storage."));
    }
    piece_bytes_.push_back({.file = piece.file, .offset = file.data_begin() + entry->offset_bytes});
  }
}

void ShardSet::require(std::string_view kind, const sharding::ShardSpec& spec) const {
  const std::vector<int64_t>* shape = index_.shape_of(spec.name);
  if (shape == nullptr) {
    throw CheckpointError(
        problem(cat("the checkpoint has no tensor ", spec.name)).at(directory_.string()));
  }
  if (*shape != spec.global_shape) {
    throw CheckpointError(
        problem(cat("tensor ", spec.name, " has shape [", join(*shape), "] in the checkpoint, [",
                    join(spec.global_shape), "] in the model"))
            .at(directory_.string()));
  }
  if (!index_.has(kind, spec.name)) {
    throw CheckpointError(problem(cat("the checkpoint has no ", kind, " of tensor ", spec.name))
                              .at(directory_.string()));
  }
}

void ShardSet::read(std::string_view kind, const sharding::ShardSpec& spec, int64_t begin,
                    int64_t end, float* out) const {
  require(kind, spec);
  index_.find(kind, spec, begin, end, [&](const TensorIndex::Stretch& stretch) {
    constexpr auto kSize = static_cast<int64_t>(sizeof(float));
    const auto [file, offset] = piece_bytes_[static_cast<size_t>(stretch.piece)];
    const int64_t first = offset + stretch.source * kSize;
    const int64_t bytes = stretch.count * kSize;
    if (before_read_) before_read_(file, first, first + bytes);
    std::memcpy(out + stretch.target, files_[static_cast<size_t>(file)].bytes().data() + first,
                static_cast<size_t>(bytes));
    work_done(WorkUnit::bytes, bytes);
  });
}

}  // namespace tptrain::checkpoint
