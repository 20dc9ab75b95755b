#include "base/chunk_hash.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <utility>
#include <vector>

namespace tptrain {

namespace {

// More gain little: a disk is slower than four cores, and other ranks of the host hash as well.
constexpr int kMostThreads = 4;

int hash_threads() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool known = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  return std::clamp(known ? CPU_COUNT(&allowed) : 1, 1, kMostThreads);
}

std::string digest_of(const std::vector<char>& bytes) {
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.digest();
}

// Where no thread can be had, hashing waits until its result is asked for.
constexpr auto kBesideIfPossible = std::launch::async | std::launch::deferred;

std::string root_of(const std::vector<std::string>& digests) {
  Sha256 root;
  for (const std::string& digest : digests) root.update(digest);
  return root.hex();
}

}  // namespace

struct ChunkHasher::Impl {
  using Chunk = std::vector<char>;
  const size_t most_under_way = static_cast<size_t>(hash_threads());
  Chunk filling;
  std::deque<std::future<std::pair<std::string, Chunk>>> under_way;  // in order
  std::vector<Chunk> spare;                                          // memory that was used before
  std::vector<std::string> digests;

  void take_first() {
    auto [digest, chunk] = under_way.front().get();
    under_way.pop_front();
    digests.push_back(std::move(digest));
    chunk.clear();
    spare.push_back(std::move(chunk));
  }
  void hand_over() {
    if (under_way.size() == most_under_way) take_first();
    under_way.push_back(std::async(kBesideIfPossible, [chunk = std::move(filling)]() mutable {
      std::string digest = digest_of(chunk);
      return std::pair(std::move(digest), std::move(chunk));
    }));
    filling = {};
    if (spare.empty()) return;
    filling = std::move(spare.back());
    spare.pop_back();
  }
};

ChunkHasher::ChunkHasher() : impl_(std::make_unique<Impl>()) {}
ChunkHasher::~ChunkHasher() = default;

void ChunkHasher::update(const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const size_t room = static_cast<size_t>(kHashChunkBytes) - impl_->filling.size();
    const size_t taken = std::min(room, count);
    impl_->filling.insert(impl_->filling.end(), at, at + taken);
    at += taken;
    count -= taken;
    if (impl_->filling.size() == static_cast<size_t>(kHashChunkBytes)) impl_->hand_over();
  }
}

std::string ChunkHasher::root() {
  if (!impl_->filling.empty()) impl_->hand_over();
  while (!impl_->under_way.empty()) impl_->take_first();
  return root_of(impl_->digests);
}

std::string chunked_sha256_file(const std::filesystem::path& path, FailAs fail_as) {
  const int64_t size = file_size(path, fail_as);
  const int64_t chunks = (size + kHashChunkBytes - 1) / kHashChunkBytes;
  std::vector<std::string> digests(static_cast<size_t>(chunks));
  std::atomic<int64_t> next = 0;
  const auto work = [&] {
    for (int64_t chunk = next++; chunk < chunks; chunk = next++) {
      const int64_t begin = chunk * kHashChunkBytes;
      digests[static_cast<size_t>(chunk)] =
          sha256_of_range(path, begin, std::min(begin + kHashChunkBytes, size), fail_as);
    }
  };
  std::vector<std::future<void>> others;
  const auto helpers = std::min<int64_t>(hash_threads(), chunks) - 1;
  for (int64_t i = 0; i < helpers; ++i) others.push_back(std::async(kBesideIfPossible, work));
  try {
    work();
  } catch (...) {
    next = chunks;  // a stop: the others end with the chunk that they are at
    throw;
  }
  for (std::future<void>& other : others) other.get();
  return root_of(digests);
}

}  // namespace tptrain
