#include "base/chunk_hash.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <future>
#include <new>
#include <utility>

#include "base/background.h"
#include "base/hex.h"

namespace tptrain {

namespace {

// Of writing: more gain little, since a disk is slower than four cores, and the cores have a
// training to do.
constexpr int kMostWriting = 4;
constexpr int kMostReading = 16;

constexpr auto kChunk = static_cast<size_t>(kHashChunkBytes);

// The memory of a chunk: whole pages, which cost nothing until they are written.
class Chunk {
 public:
  Chunk()
      : bytes_(static_cast<char*>(
            ::mmap(nullptr, kChunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    if (bytes_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Chunk() { ::munmap(bytes_, kChunk); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  size_t append(const char* bytes, size_t count) {
    const size_t taken = std::min(kChunk - size_, count);
    std::memcpy(bytes_ + size_, bytes, taken);
    size_ += taken;
    return taken;
  }
  void clear() { size_ = 0; }
  bool empty() const { return size_ == 0; }
  bool full() const { return size_ == kChunk; }
  std::span<const char> bytes() const { return {bytes_, size_}; }

 private:
  char* bytes_;
  size_t size_ = 0;
};

std::string digest_of(std::span<const char> bytes) {
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.hex();
}

}  // namespace

struct ChunkHasher::Impl {
  struct UnderWay {
    std::shared_ptr<Chunk> chunk;
    std::future<std::string> digest;
    std::shared_future<void> taken;  // by the sink, after the chunk before it
  };
  const Sink sink;
  const size_t most_under_way =
      static_cast<size_t>(std::clamp(usable_cores(), 1, kMostWriting)) + 1;
  std::shared_ptr<Chunk> filling;
  std::vector<std::shared_ptr<Chunk>> spare = {};
  std::vector<std::string> digests = {};
  std::deque<UnderWay> under_way = {};  // in order; waits for its threads when destroyed

  void finish_first() {
    UnderWay& first = under_way.front();
    await(first.digest);
    digests.push_back(first.digest.get());
    if (first.taken.valid()) {
      await(first.taken);
      first.taken.get();
    }
    first.chunk->clear();
    spare.push_back(std::move(first.chunk));
    under_way.pop_front();
  }
  void hand_over() {
    if (under_way.size() == most_under_way) finish_first();
    const std::shared_ptr<Chunk> chunk = std::exchange(filling, nullptr);
    UnderWay next{
        .chunk = chunk,
        .digest = std::async(kBesideIfPossible, [chunk] { return digest_of(chunk->bytes()); }),
        .taken = {}};
    if (sink) {
      const std::shared_future<void> before =
          under_way.empty() ? std::shared_future<void>() : under_way.back().taken;
      next.taken = std::async(kBesideIfPossible, [this, chunk, before] {
                     if (before.valid()) before.get();
                     sink(chunk->bytes());
                   }).share();
    }
    under_way.push_back(std::move(next));
  }
  Chunk& room() {
    if (filling) return *filling;
    if (spare.empty()) {
      filling = std::make_shared<Chunk>();
    } else {
      filling = std::move(spare.back());
      spare.pop_back();
    }
    return *filling;
  }
};

ChunkHasher::ChunkHasher(Sink sink) : impl_(new Impl{.sink = std::move(sink), .filling = {}}) {}
ChunkHasher::~ChunkHasher() = default;

void ChunkHasher::update(const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const size_t taken = impl_->room().append(at, count);
    at += taken;
    count -= taken;
    if (impl_->filling->full()) impl_->hand_over();
  }
}

std::vector<std::string> ChunkHasher::digests() {
  if (impl_->filling && !impl_->filling->empty()) impl_->hand_over();
  while (!impl_->under_way.empty()) impl_->finish_first();
  return std::move(impl_->digests);
}

std::string chunk_root(const std::vector<std::string>& digests) {
  Sha256 root;
  for (const std::string& digest : digests) root.update(bytes_of_hex(digest));
  return root.hex();
}

int reading_threads() { return std::min(usable_cores(), kMostReading); }

std::string chunked_sha256_file(const std::filesystem::path& path, FailAs fail_as) {
  const int64_t size = file_size(path, fail_as);
  std::vector<std::string> digests(static_cast<size_t>(hash_chunks_of(size)));
  in_parallel(hash_chunks_of(size), reading_threads(), [&](int64_t chunk) {
    const int64_t begin = chunk * kHashChunkBytes;
    digests[static_cast<size_t>(chunk)] =
        sha256_of_range(path, begin, std::min(begin + kHashChunkBytes, size), fail_as);
  });
  return chunk_root(digests);
}

}  // namespace tptrain
