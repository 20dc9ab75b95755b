#include "checkpoint/verify.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "base/background.h"
#include "base/chunk_hash.h"
#include "base/directory.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/tensor_index.h"
#include "formats/safetensors.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

// The header must name the pieces of this file and nothing else: a hash only says that the bytes
// are the ones written.
void check_shard_header(const fs::path& directory, const Manifest& manifest, int64_t file) {
  const std::string name = shard_name(file, static_cast<int64_t>(manifest.files.size()));
  const formats::SafetensorsFile shard(directory / name);
  size_t expected = 0;
  for (const ManifestPiece& piece : manifest.pieces) {
    if (piece.file != file) continue;
    ++expected;
    const formats::SafetensorsEntry* entry = shard.find(piece.key);
    if (entry == nullptr)
      throw Refused(cat(name, " lacks the tensor \"", piece.key, "\" that the manifest lists"));
    const std::vector<int64_t> shape{piece.end - piece.begin};
    if (entry->dtype != formats::Dtype::f32 || entry->shape != shape) {
      throw Refused(cat(name, ": tensor \"", piece.key, "\" is ", formats::dtype_name(entry->dtype),
                        " [", join(entry->shape), "], the manifest says F32 [", shape[0], "]"));
    }
  }
  if (shard.entries().size() != expected) {
    throw Refused(
        cat(name, " holds ", shard.entries().size(), " tensors, the manifest lists ", expected));
  }
}

std::string read_manifest_text(const fs::path& directory) {
  const fs::path path = directory / kManifestName;
  std::error_code error;
  if (!is_taken(directory)) throw Refused("there is no such directory");
  if (!fs::exists(path, error))
    throw Refused("has no manifest.json: it was never committed, or is being deleted");
  return read_file(path, kMaxManifestBytes);
}

Manifest read_manifest(const fs::path& directory) {
  return parse_manifest(read_manifest_text(directory));
}

namespace {

std::vector<sharding::StateKind> kinds_of(const std::vector<ManifestPiece>& pieces) {
  std::set<sharding::StateKind> found;
  for (const ManifestPiece& piece : pieces) found.insert(piece.kind);
  std::vector<sharding::StateKind> kinds(found.begin(), found.end());
  std::ranges::sort(kinds, sharding::kind_before);
  return kinds;
}

}  // namespace

CheckpointInfo info_of(const Manifest& manifest, const fs::path& directory) {
  return {.path = directory,
          .save_id = manifest.save_id,
          .parent_save_id = manifest.parent_save_id,
          .save_sequence = manifest.save_sequence,
          .state = manifest.state,
          .kinds = kinds_of(manifest.pieces)};
}

void check_shard_size(const fs::path& directory, const Manifest& manifest, int64_t file) {
  const std::string name = shard_name(file, static_cast<int64_t>(manifest.files.size()));
  const fs::path path = directory / name;
  std::error_code error;
  // Also keeps a FIFO in the shard's place from blocking its reader for ever.
  if (!fs::is_regular_file(path, error)) throw Refused(cat(name, " is missing or no regular file"));
  const auto size = static_cast<int64_t>(fs::file_size(path, error));
  if (error) throw Refused(cat(name, ": ", error.message()));
  const int64_t expected = manifest.files.at(static_cast<size_t>(file)).size_bytes;
  if (size != expected) {
    throw Refused(cat(name, " has ", size, " bytes, the manifest says ", expected, ": it was ",
                      size < expected ? "truncated" : "extended", " after it was committed"));
  }
}

namespace {

int64_t units_of(const ManifestFile& file) {
  return std::max<int64_t>(1, static_cast<int64_t>(file.chunks.size()));
}

int64_t bytes_of(const ManifestFile& file, int64_t chunk) {
  if (file.chunks.empty()) return file.size_bytes;
  return std::min(kHashChunkBytes, file.size_bytes - chunk * kHashChunkBytes);
}

std::string digest_of(const fs::path& path, const Manifest& manifest, const ShardChunk& chunk) {
  const ManifestFile& file = manifest.files[static_cast<size_t>(chunk.file)];
  if (manifest.format_version == 1) return sha256_file(path);
  if (file.chunks.empty()) return chunked_sha256_file(path);
  const int64_t begin = chunk.chunk * kHashChunkBytes;
  return sha256_of_range(path, begin, begin + bytes_of(file, chunk.chunk));
}

// Of the chunks that hold weights.
std::vector<ShardChunk> chunks_of_weights(const fs::path& directory, const Manifest& manifest) {
  std::vector<ShardChunk> chunks;
  const auto count = static_cast<int64_t>(manifest.files.size());
  for (int64_t file = 0; file < count; ++file) {
    const formats::SafetensorsFile shard(directory / shard_name(file, count));
    int64_t end = shard.data_begin();
    for (const formats::SafetensorsEntry& entry : shard.entries()) {
      if (entry.name.starts_with(cat(sharding::kMaster, "/")))
        end = std::max(end, shard.data_begin() + entry.offset_bytes + entry.size_bytes);
    }
    // The format puts the weights first; where a shard does not, more is read than need be.
    const int64_t units = units_of(manifest.files[static_cast<size_t>(file)]);
    for (int64_t chunk = 0; chunk < std::min(units, hash_chunks_of(end)); ++chunk)
      chunks.push_back({.file = file, .chunk = chunk});
  }
  return chunks;
}

}  // namespace

std::vector<ShardChunk> share_of_chunks(const Manifest& manifest, int64_t part, int64_t parts) {
  int64_t total = 0;
  for (const ManifestFile& file : manifest.files) total += units_of(file);
  std::vector<ShardChunk> share;
  int64_t number = 0;
  for (size_t file = 0; file < manifest.files.size(); ++file) {
    for (int64_t chunk = 0; chunk < units_of(manifest.files[file]); ++chunk, ++number) {
      if (number >= total * part / parts && number < total * (part + 1) / parts)
        share.push_back({.file = static_cast<int64_t>(file), .chunk = chunk});
    }
  }
  return share;
}

int64_t bytes_of(const Manifest& manifest, const std::vector<ShardChunk>& chunks) {
  int64_t bytes = 0;
  for (const ShardChunk& chunk : chunks)
    bytes += bytes_of(manifest.files[static_cast<size_t>(chunk.file)], chunk.chunk);
  return bytes;
}

std::string chunk_fault(const Manifest& manifest, const ShardChunk& chunk,
                        const std::string& actual) {
  const ManifestFile& file = manifest.files[static_cast<size_t>(chunk.file)];
  const std::string& expected =
      file.chunks.empty() ? file.hash : file.chunks[static_cast<size_t>(chunk.chunk)];
  if (actual == expected) return {};
  const std::string place =
      file.chunks.size() < 2
          ? ""
          : cat(" in chunk ", chunk.chunk + 1, " of ", file.chunks.size(), " (bytes ",
                chunk.chunk * kHashChunkBytes, " to ",
                chunk.chunk * kHashChunkBytes + bytes_of(file, chunk.chunk), ")");
  return cat(shard_name(chunk.file, static_cast<int64_t>(manifest.files.size())), ": SHA-256 is ",
             actual, place, ", the manifest says ", expected,
             ": the file changed after it was committed");
}

void check_chunks(const fs::path& directory, const Manifest& manifest,
                  const std::vector<ShardChunk>& chunks) {
  const auto count = static_cast<int64_t>(manifest.files.size());
  std::set<int64_t> files;
  for (const ShardChunk& chunk : chunks) files.insert(chunk.file);
  for (const int64_t file : files) check_shard_size(directory, manifest, file);
  in_parallel(static_cast<int64_t>(chunks.size()), reading_threads(), [&](int64_t i) {
    const ShardChunk& chunk = chunks[static_cast<size_t>(i)];
    const fs::path path = directory / shard_name(chunk.file, count);
    const std::string fault = chunk_fault(manifest, chunk, digest_of(path, manifest, chunk));
    if (!fault.empty()) throw Refused(fault);
  });
  for (const ShardChunk& chunk : chunks) {
    if (chunk.chunk == 0) check_shard_header(directory, manifest, chunk.file);
  }
}

Verdict verify(const fs::path& directory, Depth depth) {
  Verdict verdict{.path = directory, .info = {}, .problem = {}};
  verdict.problem = problem_of([&] {
    const Manifest manifest = read_manifest(directory);
    verdict.info = info_of(manifest, directory);
    if (depth == Depth::manifest) return;
    const TensorIndex covers_every_tensor(manifest.pieces);
    const auto count = static_cast<int64_t>(manifest.files.size());
    for (int64_t file = 0; file < count; ++file) check_shard_size(directory, manifest, file);
    const std::vector<ShardChunk> chunks = depth == Depth::weights
                                               ? chunks_of_weights(directory, manifest)
                                               : share_of_chunks(manifest, 0, 1);
    const Work work("checking " + directory.filename().string(), WorkUnit::bytes,
                    bytes_of(manifest, chunks));
    check_chunks(directory, manifest, chunks);
  });
  return verdict;
}

}  // namespace tptrain::checkpoint
