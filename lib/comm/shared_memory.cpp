#include "comm/shared_memory.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstring>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/all_to_all_parts.h"

namespace tptrain::comm {

namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kCacheLine = 64;
// Below this a second barrier costs more than reducing everything on every rank
// (benchmarks/comm_cpu.cpp).
constexpr int64_t kSmallBytes = 16 << 10;
// A few microseconds: as long as a barrier takes where every rank runs on a core of its own. Beyond
// that the other one is likely waiting for this core (the scheduler puts two busy ranks on one core
// often enough), and spinning on would only keep it waiting.
constexpr int kSpinsWithOwnCore = 150;
constexpr int kSpinsOversubscribed = 20;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT, value, nullptr, nullptr, 0);
}
void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

struct SharedMemory::Header {
  alignas(kCacheLine) std::atomic<uint32_t> arrived{0};
  alignas(kCacheLine) std::atomic<uint32_t> generation{0};
  alignas(kCacheLine) std::atomic<uint32_t> sleepers{0};
};
static_assert(std::atomic<uint32_t>::is_always_lock_free, "a futex word is a plain 32-bit integer");

// What a rank is about to do; ranks compare these, since sums of unlike calls would be wrong
// numbers and not errors.
struct alignas(kCacheLine) SharedMemory::Call {
  enum class Kind : int32_t {
    all_reduce,
    reduce_scatter,
    all_gather,
    broadcast,
    all_to_all,
    barrier
  };
  Kind kind = Kind::barrier;
  Element element = Element::fp32;
  ReduceOp op = ReduceOp::sum;
  int32_t root = 0;
  int64_t bytes = 0;

  bool operator==(const Call&) const = default;
  std::string text() const {
    static constexpr const char* kKinds[] = {"all_reduce", "reduce_scatter", "all_gather",
                                             "broadcast",  "all_to_all",     "barrier"};
    static constexpr const char* kElements[] = {"fp32", "bf16", "int64"};
    const bool reduces = kind == Kind::all_reduce || kind == Kind::reduce_scatter;
    std::string out = kKinds[static_cast<int>(kind)];
    if (kind != Kind::barrier) out += cat(" of ", bytes, " bytes");
    if (reduces) {
      out += cat(" of ", kElements[static_cast<int>(element)],
                 op == ReduceOp::sum ? " (sum)" : " (max)");
    }
    if (kind == Kind::broadcast) out += cat(" from rank ", root);
    return out;
  }
};

std::unique_ptr<SharedMemory> SharedMemory::create(ControlGroup& group, std::string name,
                                                   const SharedMemoryOptions& options,
                                                   std::string* why_not) {
  const int size = group.size();
  // A slot holds a part for every rank, each on its own cache lines.
  const int64_t slot_bytes =
      round_up(std::max<int64_t>(options.slot_bytes, size * kCacheLine), kPage);
  const int64_t header_bytes = round_up(
      static_cast<int64_t>(sizeof(Header)) + 2 * size * static_cast<int64_t>(sizeof(Call)), kPage);
  const int64_t segment_bytes = header_bytes + 2 * size * slot_bytes;

  std::unique_ptr<HostSegment> segment = HostSegment::create(
      group, segment_bytes, [](void* memory) { new (memory) Header; }, why_not);
  if (segment == nullptr) return nullptr;
  const bool own_core = options.waiting == Waiting::on_own_core;
  return std::unique_ptr<SharedMemory>(
      new SharedMemory(std::move(segment), slot_bytes, group, std::move(name),
                       own_core ? kSpinsWithOwnCore : kSpinsOversubscribed));
}

SharedMemory::SharedMemory(std::unique_ptr<HostSegment> segment, int64_t slot_bytes,
                           ControlGroup& group, std::string name, int spins)
    : memory_(std::move(segment)),
      segment_(static_cast<char*>(memory_->memory())),
      segment_bytes_(memory_->bytes()),
      slot_bytes_(slot_bytes),
      rank_(group.rank()),
      size_(group.size()),
      name_(std::move(name)),
      spins_(spins) {}

SharedMemory::~SharedMemory() = default;

SharedMemory::Call& SharedMemory::call(int rank) const {
  return reinterpret_cast<Call*>(segment_ + sizeof(Header))[turn_ * size_ + rank];
}

char* SharedMemory::slot(int rank) const {
  const int64_t slots = 2 * size_ * slot_bytes_;
  return segment_ + (segment_bytes_ - slots) + (turn_ * size_ + rank) * slot_bytes_;
}

void SharedMemory::wait_for_all() {
  auto& header = *reinterpret_cast<Header*>(segment_);
  const uint32_t generation = header.generation.load(std::memory_order_acquire);
  if (header.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    header.arrived.store(0, std::memory_order_relaxed);
    header.generation.store(generation + 1);
    if (header.sleepers.load() > 0) futex_wake_all(header.generation);
    return;
  }
  for (int spin = 0; spin < spins_; ++spin) {
    if (header.generation.load(std::memory_order_acquire) != generation) return;
    pause_core();
  }
  // Sequentially consistent on both sides: either the last rank sees this sleeper, or this rank
  // sees the new generation.
  header.sleepers.fetch_add(1);
  while (header.generation.load() == generation) futex_wait(header.generation, generation);
  header.sleepers.fetch_sub(1);
}

void SharedMemory::begin(const Call& own) {
  call(rank_) = own;
  unchecked_ = true;
}

void SharedMemory::first_barrier() {
  wait_for_all();
  if (!unchecked_) return;
  unchecked_ = false;
  check_same_call();
}

void SharedMemory::check_same_call() {
  for (int r = 1; r < size_; ++r) {
    if (call(r) == call(0)) continue;
    const std::string received = cat("rank ", r, " calls ", call(r).text());
    const std::string wanted = call(0).text();
    next_round();  // every rank throws here: they stay in step
    throw CommError(problem(received)
                        .at(name_)
                        .must(cat("call what rank 0 of the axis calls, ", wanted))
                        .remedy("The ranks of an axis must make the same calls in the same order: "
                                "look for a branch that depends on the rank or its data."));
  }
}

void SharedMemory::all_reduce(void* data, int64_t count, Element element, ReduceOp op) {
  const int64_t width = bytes_of(element);
  begin({Call::Kind::all_reduce, element, op, 0, count * width});
  char* bytes = static_cast<char*>(data);
  if (count * width <= std::min(kSmallBytes, slot_bytes_)) {
    return all_reduce_small(bytes, count, element, op);
  }
  const int64_t round = slot_bytes_ / width;
  for (int64_t done = 0; done < count; done += round) {
    all_reduce_round(bytes + done * width, std::min(round, count - done), element, op);
  }
}

void SharedMemory::all_reduce_small(char* data, int64_t count, Element element, ReduceOp op) {
  std::memcpy(slot(rank_), data, count * bytes_of(element));
  first_barrier();
  std::vector<const void*> sources(size_);
  for (int r = 0; r < size_; ++r) sources[r] = slot(r);
  reduce_elements(data, sources.data(), size_, count, element, op);
  next_round();
}

void SharedMemory::all_reduce_round(char* data, int64_t count, Element element, ReduceOp op) {
  const int64_t width = bytes_of(element);
  // Part r of the round belongs to rank r; parts begin on cache lines, so that no two ranks write
  // to one line.
  const int64_t part_bytes = round_up((count * width + size_ - 1) / size_, kCacheLine);
  const auto part_begin = [&](int r) { return std::min(r * part_bytes, count * width); };

  // A rank's own part is reduced straight from its tensor: its place in the slot stays free for the
  // result.
  const int64_t own_begin = part_begin(rank_);
  const int64_t own_end = part_begin(rank_ + 1);
  std::memcpy(slot(rank_), data, own_begin);
  std::memcpy(slot(rank_) + own_end, data + own_end, count * width - own_end);
  first_barrier();

  std::vector<const void*> sources(size_);
  for (int r = 0; r < size_; ++r) sources[r] = (r == rank_ ? data : slot(r)) + own_begin;
  reduce_elements(data + own_begin, sources.data(), size_, (own_end - own_begin) / width, element,
                  op);
  std::memcpy(slot(rank_) + own_begin, data + own_begin, own_end - own_begin);
  wait_for_all();

  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    std::memcpy(data + part_begin(r), slot(r) + part_begin(r), part_begin(r + 1) - part_begin(r));
  }
  next_round();
}

void SharedMemory::reduce_scatter(void* output, const void* input, int64_t output_count,
                                  Element element, ReduceOp op) {
  const int64_t width = bytes_of(element);
  const int64_t piece_bytes = output_count * width;
  begin({Call::Kind::reduce_scatter, element, op, 0, piece_bytes * size_});
  // A slot is cut into one place a rank, for its share of the round.
  const int64_t place_bytes = slot_bytes_ / size_ / kCacheLine * kCacheLine;
  const char* from = static_cast<const char*>(input);
  std::vector<const void*> sources(size_);
  for (int64_t done = 0; done < piece_bytes; done += place_bytes) {
    const int64_t share = std::min(place_bytes, piece_bytes - done);
    for (int r = 0; r < size_; ++r) {
      if (r == rank_) continue;
      std::memcpy(slot(rank_) + r * place_bytes, from + r * piece_bytes + done, share);
    }
    first_barrier();
    for (int r = 0; r < size_; ++r) {
      sources[r] = r == rank_ ? from + rank_ * piece_bytes + done : slot(r) + rank_ * place_bytes;
    }
    reduce_elements(static_cast<char*>(output) + done, sources.data(), size_, share / width,
                    element, op);
    next_round();
  }
}

void SharedMemory::all_gather(void* output, const void* input, int64_t input_bytes) {
  begin({Call::Kind::all_gather, Element::fp32, ReduceOp::sum, 0, input_bytes * size_});
  const char* from = static_cast<const char*>(input);
  char* to = static_cast<char*>(output);
  for (int64_t done = 0; done < input_bytes; done += slot_bytes_) {
    const int64_t share = std::min(slot_bytes_, input_bytes - done);
    std::memcpy(slot(rank_), from + done, share);
    first_barrier();
    for (int r = 0; r < size_; ++r) {
      if (r != rank_) std::memcpy(to + r * input_bytes + done, slot(r), share);
    }
    next_round();
  }
  char* own = to + rank_ * input_bytes;
  if (own != from) std::memcpy(own, from, input_bytes);
}

void SharedMemory::broadcast(void* data, int64_t bytes, int root) {
  begin({Call::Kind::broadcast, Element::fp32, ReduceOp::sum, root, bytes});
  char* at = static_cast<char*>(data);
  for (int64_t done = 0; done < bytes; done += slot_bytes_) {
    const int64_t share = std::min(slot_bytes_, bytes - done);
    if (rank_ == root) std::memcpy(slot(root), at + done, share);
    first_barrier();
    if (rank_ != root) std::memcpy(at + done, slot(root), share);
    next_round();
  }
}

void SharedMemory::all_to_all(void* output, const void* input, std::span<const int64_t> counts,
                              int64_t width) {
  const AllToAllParts parts(counts, rank_, size_);
  int64_t all = 0;
  for (const int64_t count : counts) all += count;
  begin({Call::Kind::all_to_all, Element::fp32, ReduceOp::sum, 0, all * width});
  // A slot is cut into one place a rank, for what goes to it in the round.
  const int64_t place_bytes = slot_bytes_ / size_ / kCacheLine * kCacheLine;
  const char* from = static_cast<const char*>(input);
  char* to = static_cast<char*>(output);
  for (int64_t done = 0; done < parts.largest * width; done += place_bytes) {
    const auto share = [&](int64_t count) {
      return std::clamp<int64_t>(count * width - done, 0, place_bytes);
    };
    for (int r = 0; r < size_; ++r) {
      const auto i = static_cast<size_t>(r);
      if (r == rank_ || share(parts.sent[i]) == 0) continue;
      std::memcpy(slot(rank_) + r * place_bytes, from + parts.send_begin[i] * width + done,
                  share(parts.sent[i]));
    }
    first_barrier();
    for (int r = 0; r < size_; ++r) {
      const auto i = static_cast<size_t>(r);
      if (share(parts.received[i]) == 0) continue;
      const char* source =
          r == rank_ ? from + parts.send_begin[i] * width + done : slot(r) + rank_ * place_bytes;
      std::memcpy(to + parts.receive_begin[i] * width + done, source, share(parts.received[i]));
    }
    next_round();
  }
}

void SharedMemory::barrier() {
  begin({});
  first_barrier();
  next_round();
}

}  // namespace tptrain::comm
