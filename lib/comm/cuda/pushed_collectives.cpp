#include "comm/cuda/pushed_collectives.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "comm/cuda/sum_pieces.h"

namespace tptrain::comm {

namespace {

const char* begin_of(const at::Tensor& tensor) {
  return static_cast<const char*>(tensor.const_data_ptr());
}
char* mutable_begin_of(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.mutable_data_ptr());
}

// From one rank's place in a slot to the next, and the longest chunk. A multiple of 16 bytes, which
// is what the sum reads at a time.
int64_t place_bytes(int ranks) { return kPushSlotBytes / ranks / 512 * 512; }

// Of one size but for the last.
int64_t chunk_bytes(int64_t piece_bytes, int ranks) {
  const int64_t most = place_bytes(ranks);
  const int64_t chunks = (piece_bytes + most - 1) / most;
  return std::min(most, ((piece_bytes + chunks - 1) / chunks + 511) / 512 * 512);
}

}  // namespace

/// What each lane has done for one call.
class PushedCollectives::PushedWork final : public Work {
 public:
  PushedWork(std::string axis, at::Device device) : axis_(std::move(axis)), device_(device) {}
  void ends_with(PushLane& lane) {
    done_.push_back(lane.event());
    check_peer_call(cudaEventRecord(done_.back().get(), lane.stream()), "cudaEventRecord", axis_);
  }
  void wait() override {
    for (const EventPool::Event& event : done_) {
      check_peer_call(cudaStreamWaitEvent(compute_stream(device_), event.get(), 0),
                      "cudaStreamWaitEvent", axis_);
    }
  }

 private:
  std::string axis_;
  at::Device device_;
  std::vector<EventPool::Event> done_;
};

PushedCollectives::PushedCollectives(ControlGroup& group, const std::string& axis,
                                     at::Device device)
    : group_(group), axis_(axis), device_(device) {}

void PushedCollectives::open() {
  agree(group_, [&] {
    for (auto& lane : lanes_)
      lane = std::make_unique<PushLane>(axis_, group_.rank(), group_.size(), device_);
  });
  block_.emplace(group_, axis_, kPushSlotBytes, kPushLanes);
}

std::unique_ptr<Work> PushedCollectives::start_all_gather(const at::Tensor& output,
                                                          const at::Tensor& input) {
  return start(Kind::gather, output, input, bytes_of(input));
}

std::unique_ptr<Work> PushedCollectives::start_reduce_scatter(const at::Tensor& output,
                                                              const at::Tensor& input) {
  return start(Kind::sum, output, input, bytes_of(output));
}

std::unique_ptr<Work> PushedCollectives::start(Kind kind, const at::Tensor& output,
                                               const at::Tensor& input, int64_t piece_bytes) {
  auto work = std::make_unique<PushedWork>(axis_, device_);
  const int64_t size = chunk_bytes(piece_bytes, group_.size());
  const int64_t chunks = (piece_bytes + size - 1) / size;
  const int lanes = static_cast<int>(std::min<int64_t>(chunks, kPushLanes));
  const int first = next_;
  for (int i = 0; i < lanes; ++i) lanes_[(first + i) % kPushLanes]->follow_compute();
  for (int64_t begin = 0; begin < piece_bytes; begin += size) {
    const Chunk chunk{.begin = begin, .bytes = std::min(size, piece_bytes - begin)};
    PushLane& lane = *lanes_[next_];
    kind == Kind::gather ? gather_chunk(lane, next_, output, input, chunk)
                         : sum_chunk(lane, next_, output, input, chunk);
    next_ = (next_ + 1) % kPushLanes;
  }
  for (int i = 0; i < lanes; ++i) work->ends_with(*lanes_[(first + i) % kPushLanes]);
  return work;
}

void PushedCollectives::gather_chunk(PushLane& lane, int slot, const at::Tensor& output,
                                     const at::Tensor& input, Chunk chunk) {
  const int64_t piece = bytes_of(input);
  const int64_t place = place_bytes(lane.ranks());
  const char* own = begin_of(input) + chunk.begin;
  for (int i = 1; i < lane.ranks(); ++i) {
    // Each rank begins with another peer: no link carries two pushes at once.
    lane.push(*block_, slot, (lane.rank() + i) % lane.ranks(), lane.rank() * place, own,
              chunk.bytes);
  }
  char* to = mutable_begin_of(output) + chunk.begin;
  char* own_place = to + lane.rank() * piece;
  if (own_place != own) lane.copy(own_place, own, chunk.bytes);
  lane.receive(*block_, slot, lane.stream());
  for (int rank = 0; rank < lane.ranks(); ++rank) {
    if (rank == lane.rank()) continue;
    lane.copy(to + rank * piece, block_->slot(lane.rank(), slot) + rank * place, chunk.bytes);
  }
  lane.release(*block_, slot, lane.stream());
}

void PushedCollectives::sum_chunk(PushLane& lane, int slot, const at::Tensor& output,
                                  const at::Tensor& input, Chunk chunk) {
  const int64_t piece = bytes_of(output);
  const int64_t place = place_bytes(lane.ranks());
  const auto part_of = [&](int rank) { return begin_of(input) + rank * piece + chunk.begin; };
  for (int i = 1; i < lane.ranks(); ++i) {
    const int peer = (lane.rank() + i) % lane.ranks();
    lane.push(*block_, slot, peer, lane.rank() * place, part_of(peer), chunk.bytes);
  }
  lane.receive(*block_, slot, lane.stream());
  SumPieces sum;
  sum.pieces = lane.ranks();
  for (int rank = 0; rank < lane.ranks(); ++rank) {
    sum.terms[rank] =
        rank == lane.rank() ? part_of(rank) : block_->slot(lane.rank(), slot) + rank * place;
  }
  sum.total = mutable_begin_of(output) + chunk.begin;
  sum.bf16 = output.scalar_type() == at::kBFloat16;
  sum.count = chunk.bytes / static_cast<int64_t>(output.element_size());
  sum_pieces(sum, lane.stream());
  check_peer_call(cudaGetLastError(), "sum_pieces", axis_);
  lane.release(*block_, slot, lane.stream());
}

}  // namespace tptrain::comm
