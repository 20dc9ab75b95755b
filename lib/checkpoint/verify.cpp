#include "checkpoint/verify.h"

#include <set>
#include <system_error>
#include <unordered_map>

#include "base/chunk_hash.h"
#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/tensor_index.h"
#include "formats/safetensors.h"

namespace tptrain::checkpoint {

namespace fs = std::filesystem;

namespace {

// The header must name the pieces of this file and nothing else: a hash only says that the bytes
// are the ones written.
void check_header(const fs::path& path, const Manifest& manifest, int64_t file,
                  const std::string& name) {
  const formats::SafetensorsFile shard(path);
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

}  // namespace

std::string read_manifest_text(const fs::path& directory) {
  const fs::path path = directory / kManifestName;
  std::error_code error;
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

void check_shard(const fs::path& directory, const Manifest& manifest, int64_t file) {
  check_shard_size(directory, manifest, file);
  const std::string name = shard_name(file, static_cast<int64_t>(manifest.files.size()));
  const std::string& expected = manifest.files.at(static_cast<size_t>(file)).hash;
  const std::string actual = manifest.format_version == 1 ? sha256_file(directory / name)
                                                          : chunked_sha256_file(directory / name);
  if (actual != expected) {
    throw Refused(cat(name, ": SHA-256 is ", actual, ", the manifest says ", expected,
                      ": the file changed after it was committed"));
  }
  check_header(directory / name, manifest, file, name);
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
    int64_t bytes = 0;
    for (const ManifestFile& file : manifest.files) bytes += file.size_bytes;
    const Work work("checking " + directory.filename().string(), WorkUnit::bytes, bytes);
    for (int64_t file = 0; file < count; ++file) check_shard(directory, manifest, file);
  });
  return verdict;
}

}  // namespace tptrain::checkpoint
