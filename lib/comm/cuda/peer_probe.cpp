#include "comm/cuda/peer_probe.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/cuda/peer_probe_kernels.h"
#include "comm/cuda/push_lane.h"
#include "comm/cuda/shared_block.h"

namespace tptrain::comm {

namespace {

constexpr std::chrono::seconds kPatience(5);
constexpr std::chrono::seconds kPatienceOnceFreed(5);
constexpr std::chrono::microseconds kBetweenLooks(100);
constexpr int kSlots = 2;

/// Device memory of the trial alone.
class Words {
 public:
  Words(size_t count, const std::string& axis) : bytes_(count * sizeof(uint32_t)) {
    check_peer_call(cudaMalloc(&data_, bytes_), "cudaMalloc", axis);
  }
  Words(const Words&) = delete;
  Words& operator=(const Words&) = delete;
  ~Words() { cudaFree(data_); }
  uint32_t* get() const { return static_cast<uint32_t*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

class Stream {
 public:
  explicit Stream(const std::string& axis) {
    check_peer_call(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                    "cudaStreamCreateWithFlags", axis);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaPeerProbe final : public PeerProbe {
 public:
  CudaPeerProbe(ControlGroup& group, const std::string& axis, at::Device device,
                const PeerTrialSize& size)
      : group_(group),
        lane_(axis, group.rank(), group.size(), device),
        reader_(axis),
        rescue_(axis),
        copied_(group, axis, slot_bytes(size.copied_words, group.size()), kSlots),
        stored_(group, axis, slot_bytes(size.stored_words, group.size()), kSlots) {}

  // Nobody frees memory that another has open.
  ~CudaPeerProbe() override {
    copied_.close();
    stored_.close();
    try {
      group_.barrier();
    } catch (const std::exception&) {  // another rank is gone: so will be this one
    }
  }

  PeerWords exchange(PeerEngine engine, const PeerWords& sent) override {
    const Words out(sent.values.size(), lane_.axis());
    const Words in(sent.values.size(), lane_.axis());
    const Words given_up(static_cast<size_t>(sent.ranks), lane_.axis());
    PeerWords came(sent.rounds, sent.ranks, sent.words);
    check(cudaMemcpy(out.get(), sent.values.data(), out.bytes(), cudaMemcpyHostToDevice),
          "cudaMemcpy");
    for (const Words* words : {&in, &given_up})
      check(cudaMemset(words->get(), 0, words->bytes()), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (int round = 0; round < sent.rounds; ++round) {
      const int64_t place = int64_t{round} * sent.ranks * sent.words;
      if (engine == PeerEngine::copies)
        copy(out.get() + place, in.get() + place, sent.words);
      else
        store(out.get() + place, in.get() + place, sent.words, given_up.get());
    }
    wait_for_all();
    check(cudaMemcpy(came.values.data(), in.get(), in.bytes(), cudaMemcpyDeviceToHost),
          "cudaMemcpy");
    return came;
  }

 private:
  static int64_t slot_bytes(int64_t words, int ranks) {
    const int64_t bytes = words * ranks * static_cast<int64_t>(sizeof(uint32_t));
    return (bytes + 511) / 512 * 512;
  }
  void check(cudaError_t code, const char* call) const {
    check_peer_call(code, call, lane_.axis());
  }

  // Of the order of PushedCollectives: the lane pushes, another stream reads and gives back.
  void copy(const uint32_t* out, uint32_t* in, int64_t words) {
    const int slot = copied_.take();
    const int rank = lane_.rank();
    const int64_t bytes = words * static_cast<int64_t>(sizeof(uint32_t));
    for (int i = 1; i < lane_.ranks(); ++i) {
      const int peer = (rank + i) % lane_.ranks();
      lane_.push(copied_, slot, peer, rank * bytes, out + peer * words, bytes);
    }
    lane_.receive(copied_, slot, reader_.get());
    probe_take(in, reinterpret_cast<const uint32_t*>(copied_.slot(rank, slot)),
               words * lane_.ranks(), reader_.get());
    check(cudaGetLastError(), "probe_take");
    lane_.release(copied_, slot, reader_.get());
  }

  void store(const uint32_t* out, uint32_t* in, int64_t words, uint32_t* given_up) {
    ProbeStores args;
    args.rank = lane_.rank();
    args.ranks = lane_.ranks();
    args.round = ++stores_;
    args.words = words;
    args.sent = out;
    args.came = in;
    args.given_up = given_up;
    args.patience_ns = std::chrono::nanoseconds(kPatience).count();
    const int slot = stored_.take();
    for (int rank = 0; rank < lane_.ranks(); ++rank) {
      args.slots[rank] = reinterpret_cast<uint32_t*>(stored_.slot(rank, slot));
      args.flags_there[rank] = stored_.full(rank, 0, lane_.rank());
      args.flags_here[rank] = stored_.full(lane_.rank(), 0, rank);
    }
    probe_stores(args, reader_.get());
    check(cudaGetLastError(), "probe_stores");
  }

  bool ended_within(std::chrono::seconds patience, bool free_waits) {
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      const cudaError_t pushed = cudaStreamQuery(lane_.stream());
      const cudaError_t read = cudaStreamQuery(reader_.get());
      if (pushed == cudaSuccess && read == cudaSuccess) return true;
      if (pushed != cudaErrorNotReady && pushed != cudaSuccess) check(pushed, "a trial of copies");
      if (read != cudaErrorNotReady && read != cudaSuccess) check(read, "a trial of copies");
      if (std::chrono::steady_clock::now() > until) return false;
      // All waits of this rank are for flags in its own memory.
      if (free_waits) copied_.raise_own_flags(rescue_.get(), lane_.axis());
      std::this_thread::sleep_for(kBetweenLooks);
    }
  }

  // A flag that never comes would hold this rank's streams for ever.
  void wait_for_all() {
    if (ended_within(kPatience, /*free_waits=*/false)) return;
    if (ended_within(kPatienceOnceFreed, /*free_waits=*/true)) return;
    throw CommError(problem(cat("writes between GPUs did not end within ",
                                (kPatience + kPatienceOnceFreed).count(), " s"))
                        .at(lane_.axis()));
  }

  ControlGroup& group_;
  PushLane lane_;
  Stream reader_;
  Stream rescue_;
  SharedBlock copied_;
  SharedBlock stored_;
  uint32_t stores_ = 0;  // rounds so far
};

}  // namespace

std::unique_ptr<PeerProbe> cuda_peer_probe(ControlGroup& group, const std::string& axis,
                                           at::Device device, const PeerTrialSize& size) {
  return std::make_unique<CudaPeerProbe>(group, axis, device, size);
}

}  // namespace tptrain::comm
