#include "checkpoint/read_check.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/background.h"
#include "base/chunk_hash.h"
#include "base/files.h"
#include "checkpoint/verify.h"

namespace tptrain::checkpoint {

namespace {

constexpr int64_t kHashedAtOnce = int64_t{1} << 20;

std::string digest_of(std::span<const std::byte> bytes) {
  Sha256 hash;
  for (size_t done = 0; done < bytes.size(); done += static_cast<size_t>(kHashedAtOnce)) {
    const size_t count = std::min(bytes.size() - done, static_cast<size_t>(kHashedAtOnce));
    hash.update(bytes.data() + done, count);
    interruption_point();
  }
  return hash.hex();
}

std::span<const std::byte> bytes_of_chunk(std::span<const std::byte> file, int64_t chunk) {
  const auto begin = static_cast<size_t>(chunk * kHashChunkBytes);
  return file.subspan(begin, std::min(file.size() - begin, static_cast<size_t>(kHashChunkBytes)));
}

// Where the manifest has one hash for all of the file.
std::string digest_of_whole(std::span<const std::byte> file, int64_t format_version) {
  if (format_version == 1) return digest_of(file);
  std::vector<std::string> digests(
      static_cast<size_t>(hash_chunks_of(static_cast<int64_t>(file.size()))));
  in_parallel(static_cast<int64_t>(digests.size()), reading_threads(), [&](int64_t chunk) {
    digests[static_cast<size_t>(chunk)] = digest_of(bytes_of_chunk(file, chunk));
  });
  return chunk_root(digests);
}

}  // namespace

ReadCheck::ReadCheck(const Manifest& manifest, const ShardSet& shards)
    : manifest_(manifest), shards_(shards) {
  for (const ManifestFile& file : manifest.files)
    files_.push_back({.sound = std::vector<bool>(std::max<size_t>(file.chunks.size(), 1))});
}

void ReadCheck::require(int64_t file, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const std::lock_guard lock(mutex_);
  State& state = files_[static_cast<size_t>(file)];
  const bool by_chunks = !manifest_.files[static_cast<size_t>(file)].chunks.empty();
  const int64_t first = by_chunks ? begin / kHashChunkBytes : 0;
  const int64_t last = by_chunks ? (end - 1) / kHashChunkBytes : 0;
  std::vector<int64_t> chunks;
  const auto want = [&](int64_t from, int64_t to) {
    for (int64_t chunk = from; chunk <= to; ++chunk) {
      if (!state.sound[static_cast<size_t>(chunk)]) chunks.push_back(chunk);
    }
  };
  want(first, last);
  if (chunks.empty()) return;
  // One after another: twice as many at once each time, as a file system reads ahead.
  const bool follows = first > 0 && state.sound[static_cast<size_t>(first - 1)];
  state.ahead = follows ? std::clamp<int64_t>(2 * state.ahead, 1, reading_threads()) : 0;
  const int64_t most = static_cast<int64_t>(state.sound.size()) - 1;
  want(last + 1, std::min(most, last + state.ahead));
  // What the header says where things are must be true before they are looked for.
  const int64_t header_end =
      by_chunks ? (shards_.file(file).data_begin() - 1) / kHashChunkBytes : 0;
  want(0, std::min(header_end, first - 1));
  check(file, chunks);
}

void ReadCheck::check(int64_t file, const std::vector<int64_t>& chunks) {
  const std::span<const std::byte> bytes = shards_.file(file).bytes();
  const bool by_chunks = !manifest_.files[static_cast<size_t>(file)].chunks.empty();
  in_parallel(static_cast<int64_t>(chunks.size()), reading_threads(), [&](int64_t i) {
    const int64_t chunk = chunks[static_cast<size_t>(i)];
    const std::string actual = by_chunks ? digest_of(bytes_of_chunk(bytes, chunk))
                                         : digest_of_whole(bytes, manifest_.format_version);
    const std::string fault = chunk_fault(manifest_, {.file = file, .chunk = chunk}, actual);
    if (!fault.empty()) throw Refused(fault);
  });
  for (const int64_t chunk : chunks)
    files_[static_cast<size_t>(file)].sound[static_cast<size_t>(chunk)] = true;
}

}  // namespace tptrain::checkpoint
