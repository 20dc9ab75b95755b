#include <ATen/Functions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/cuda/direct.h"
#include "comm/cuda/shared_block.h"
#include "comm/cuda/sum_pieces.h"
#include "comm/peer_exchange.h"

namespace tptrain::comm {

namespace {

void check(cudaError_t code, const char* call, const std::string& where) {
  check_peer_call(code, call, where);
}

// The driver's stream memory operations, found at run time: the program must start where there is
// no driver library.
struct StreamOperations {
  decltype(&cuStreamBatchMemOp) batch = nullptr;

  static StreamOperations find() {
    StreamOperations found;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    void* address = nullptr;
    if (cudaGetDriverEntryPointByVersion("cuStreamBatchMemOp", &address, 12000, cudaEnableDefault,
                                         &result) == cudaSuccess &&
        result == cudaDriverEntryPointSuccess) {
      found.batch = reinterpret_cast<decltype(&cuStreamBatchMemOp)>(address);
    }
    return found;
  }
};

/// A few flag operations, in order, as one node of the stream.
class FlagOperations {
 public:
  void wait_for(const uint32_t* flag, uint32_t value) {
    CUstreamBatchMemOpParams& op = next();
    op.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op.waitValue.address = reinterpret_cast<CUdeviceptr>(flag);
    op.waitValue.value = value;
    op.waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
  }
  void write(const uint32_t* flag, uint32_t value) {
    CUstreamBatchMemOpParams& op = next();
    op.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = reinterpret_cast<CUdeviceptr>(flag);
    op.writeValue.value = value;
    op.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;  // behind all earlier writes
  }
  void run(const StreamOperations& driver, cudaStream_t stream, const std::string& where) {
    if (operations_.empty()) return;
    const CUresult code =
        driver.batch(stream, static_cast<unsigned>(operations_.size()), operations_.data(), 0);
    if (code == CUDA_SUCCESS) return;
    throw CommError(
        problem(cat("cuStreamBatchMemOp failed (CUresult ", static_cast<int>(code), ")"))
            .at(where)
            .remedy("parallel.tp_overlap: off goes through NCCL instead."));
  }

 private:
  CUstreamBatchMemOpParams& next() {
    operations_.emplace_back();
    std::memset(&operations_.back(), 0, sizeof(CUstreamBatchMemOpParams));
    return operations_.back();
  }
  std::vector<CUstreamBatchMemOpParams> operations_;
};

// Of memory that another host, or another boot of this one, cannot mean.
std::string host_identity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

class CudaEvent {
 public:
  explicit CudaEvent(const std::string& where) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags",
          where);
  }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  ~CudaEvent() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// What pushes have in common: the streams, and how one waits for the other.
struct Lane {
  std::string axis;
  int rank;
  int ranks;
  at::Device device;
  StreamOperations driver;
  c10::cuda::CUDAStream copies;  // of high priority: its own copies and flags, in program order
  CudaEvent produced;

  cudaStream_t compute() const { return c10::cuda::getCurrentCUDAStream(device.index()).stream(); }
  /// The copies that follow read what the compute stream has been given until now.
  void copies_follow_compute() {
    check(cudaEventRecord(produced.get(), compute()), "cudaEventRecord", axis);
    check(cudaStreamWaitEvent(copies.stream(), produced.get(), 0), "cudaStreamWaitEvent", axis);
  }
  void copy(char* to, const void* from, int64_t bytes) const {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice,
                          copies.stream()),
          "cudaMemcpyAsync", axis);
  }
  /// Into this rank's part of a peer's slot, when the peer lets it, and raises the peer's flag.
  void push(const SharedBlock& block, int slot, int peer, const void* from, int64_t bytes) const {
    FlagOperations turn;
    turn.wait_for(block.empty(rank, slot, peer), 1);
    turn.write(block.empty(rank, slot, peer), 0);
    turn.run(driver, copies.stream(), axis);
    copy(block.slot(peer, slot) + rank * bytes, from, bytes);
    FlagOperations filled;
    filled.write(block.full(peer, slot, rank), 1);
    filled.run(driver, copies.stream(), axis);
  }
};

int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

class PeerGather final : public PiecewiseGather {
 public:
  PeerGather(Lane& lane, SharedBlock& block, const at::Tensor& input)
      : lane_(lane), block_(block), slot_(block.take()), input_(input), copied_(lane.axis) {
    std::vector<int64_t> sizes = input.sizes().vec();
    sizes.at(0) *= lane.ranks;
    whole_ = at::from_blob(block.slot(lane.rank, slot_), sizes, input.options());
    arrived_.assign(static_cast<size_t>(lane.ranks), false);
    const int64_t bytes = bytes_of(input);
    lane.copies_follow_compute();
    for (int i = 1; i < lane.ranks; ++i) {
      // Each rank begins with another peer: no link carries two pushes at once.
      lane.push(block, slot_, (lane.rank + i) % lane.ranks, input.const_data_ptr(), bytes);
    }
    lane.copy(block.slot(lane.rank, slot_) + lane.rank * bytes, input.const_data_ptr(), bytes);
    check(cudaEventRecord(copied_.get(), lane.copies.stream()), "cudaEventRecord", lane.axis);
  }
  PeerGather(const PeerGather&) = delete;
  PeerGather& operator=(const PeerGather&) = delete;
  ~PeerGather() override {
    try {
      for (int rank = 0; rank < lane_.ranks; ++rank) wait(rank);
      FlagOperations freed;
      for (int peer = 0; peer < lane_.ranks; ++peer) {
        if (peer != lane_.rank) freed.write(block_.empty(peer, slot_, lane_.rank), 1);
      }
      freed.run(lane_.driver, lane_.compute(), lane_.axis);
    } catch (const std::exception&) {
      // A stream that takes no more calls reports it at its next one, where it can be thrown.
    }
  }

  const at::Tensor& whole() const override { return whole_; }
  bool in_pieces() const override { return true; }
  void wait(int rank) override {
    if (arrived_.at(rank)) return;
    arrived_[rank] = true;
    if (rank == lane_.rank) {
      check(cudaStreamWaitEvent(lane_.compute(), copied_.get(), 0), "cudaStreamWaitEvent",
            lane_.axis);
      return;
    }
    FlagOperations received;
    received.wait_for(block_.full(lane_.rank, slot_, rank), 1);
    received.write(block_.full(lane_.rank, slot_, rank), 0);
    received.run(lane_.driver, lane_.compute(), lane_.axis);
  }

 private:
  Lane& lane_;
  SharedBlock& block_;
  int slot_;
  at::Tensor input_;
  at::Tensor whole_;
  CudaEvent copied_;
  std::vector<bool> arrived_;
};

class PeerReduce final : public PiecewiseReduce {
 public:
  PeerReduce(Lane& lane, SharedBlock& block, at::IntArrayRef piece,
             const at::TensorOptions& options)
      : lane_(lane), block_(block), slot_(block.take()), piece_(piece.vec()), pushed_(lane.axis) {
    std::vector<int64_t> sizes = piece_;
    sizes.at(0) *= lane.ranks;
    whole_ = at::empty(sizes, options);
  }
  PeerReduce(const PeerReduce&) = delete;
  PeerReduce& operator=(const PeerReduce&) = delete;

  const at::Tensor& whole() const override { return whole_; }
  bool in_pieces() const override { return true; }
  void send(int rank) override {
    ++sent_;
    if (rank == lane_.rank) return;
    const at::Tensor part = whole_.narrow(0, rank * piece_[0], piece_[0]);
    lane_.copies_follow_compute();
    lane_.push(block_, slot_, rank, part.const_data_ptr(), bytes_of(part));
  }
  at::Tensor finish() override {
    if (sent_ != lane_.ranks) {
      throw InternalError(problem(
          cat(lane_.axis, ": a reduction ends with ", sent_, " of ", lane_.ranks, " parts sent")));
    }
    check(cudaEventRecord(pushed_.get(), lane_.copies.stream()), "cudaEventRecord", lane_.axis);
    FlagOperations received;
    FlagOperations freed;
    SumPieces sum;
    sum.pieces = lane_.ranks;
    const at::Tensor own = whole_.narrow(0, lane_.rank * piece_[0], piece_[0]);
    const int64_t bytes = bytes_of(own);
    for (int rank = 0; rank < lane_.ranks; ++rank) {
      if (rank == lane_.rank) {
        sum.terms[rank] = own.const_data_ptr();
        continue;
      }
      received.wait_for(block_.full(lane_.rank, slot_, rank), 1);
      received.write(block_.full(lane_.rank, slot_, rank), 0);
      freed.write(block_.empty(rank, slot_, lane_.rank), 1);
      sum.terms[rank] = block_.slot(lane_.rank, slot_) + rank * bytes;
    }
    received.run(lane_.driver, lane_.compute(), lane_.axis);
    at::Tensor result = at::empty(piece_, whole_.options());
    sum.total = result.mutable_data_ptr();
    sum.bf16 = result.scalar_type() == at::kBFloat16;
    sum.count = result.numel();
    sum_pieces(sum, lane_.compute());
    check(cudaGetLastError(), "sum_pieces", lane_.axis);
    freed.run(lane_.driver, lane_.compute(), lane_.axis);
    // What was pushed from goes back to the allocator now.
    check(cudaStreamWaitEvent(lane_.compute(), pushed_.get(), 0), "cudaStreamWaitEvent",
          lane_.axis);
    whole_.reset();
    return result;
  }

 private:
  Lane& lane_;
  SharedBlock& block_;
  int slot_;
  std::vector<int64_t> piece_;
  at::Tensor whole_;
  CudaEvent pushed_;
  int sent_ = 0;
};

class CudaPeerExchange final : public PeerExchange {
 public:
  CudaPeerExchange(ControlGroup& group, std::string axis, at::Device device)
      : group_(group),
        lane_{.axis = axis,
              .rank = group.rank(),
              .ranks = group.size(),
              .device = device,
              .driver = StreamOperations::find(),
              .copies = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index()),
              .produced = CudaEvent(axis)} {}
  // Collective, unless an exception ends this rank alone.
  ~CudaPeerExchange() override {
    cudaDeviceSynchronize();  // pushes of this rank; an error of the device has shown elsewhere
    const bool together = std::uncaught_exceptions() == exceptions_;
    const auto let_go = [&](const std::unique_ptr<SharedBlock>& block) {
      if (!block) return;
      block->close();
      if (!together) block->abandon();
    };
    let_go(direct_);
    for (Blocks* blocks : {&gathers_, &reduces_}) {
      for (const auto& block : *blocks) let_go(block);
    }
    if (!together) return;
    try {
      group_.barrier();
    } catch (const std::exception&) {  // another rank is gone: so will be this one
    }
  }

  std::unique_ptr<PiecewiseGather> gather_in_pieces(const at::Tensor& input) override {
    return std::make_unique<PeerGather>(
        lane_, block_of(gathers_, bytes_of(input) * lane_.ranks, kGatherSlots), input);
  }
  std::unique_ptr<PiecewiseReduce> reduce_in_pieces(at::IntArrayRef piece,
                                                    const at::TensorOptions& options) override {
    int64_t bytes = static_cast<int64_t>(options.dtype().itemsize()) * lane_.ranks;
    for (const int64_t size : piece) bytes *= size;
    return std::make_unique<PeerReduce>(lane_, block_of(reduces_, bytes, kReduceSlots), piece,
                                        options);
  }
  bool all_gather(at::Tensor& output, const at::Tensor& input) override {
    return run_direct(DirectCall::all_gather, ReduceOp::sum, output, input, bytes_of(input));
  }
  bool reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    return run_direct(DirectCall::reduce_scatter, ReduceOp::sum, output, input, bytes_of(output));
  }
  bool all_reduce(at::Tensor& tensor, ReduceOp op) override {
    return run_direct(DirectCall::all_reduce, op, tensor, tensor, bytes_of(tensor));
  }
  /// Opens the block of direct calls: throws, on every rank, where memory cannot be shared.
  void open_direct() {
    direct_ = std::make_unique<SharedBlock>(group_, lane_.axis, kMostDirectBytes, /*slots=*/3);
  }

 private:
  using Blocks = std::vector<std::unique_ptr<SharedBlock>>;  // each larger than the one before

  SharedBlock& block_of(Blocks& blocks, int64_t slot_bytes, int slots) {
    for (const auto& block : blocks) {
      if (block->slot_bytes() >= slot_bytes) return *block;
    }
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(lane_.compute(), &status), "cudaStreamIsCapturing", lane_.axis);
    if (status != cudaStreamCaptureStatusNone) {
      throw CommError(problem(cat("a push of ", human_bytes(slot_bytes), " in a captured graph"))
                          .at(lane_.axis)
                          .must("have been made once before the capture"));
    }
    const int64_t aligned = (slot_bytes + 511) / 512 * 512;
    blocks.push_back(std::make_unique<SharedBlock>(group_, lane_.axis, aligned, slots));
    return *blocks.back();
  }

  // What decides is the same on every rank, as the call is. Where tensors lie is not: one that does
  // not begin at 16 bytes goes by a copy.
  bool run_direct(DirectCall call, ReduceOp op, at::Tensor& output, const at::Tensor& input,
                  int64_t piece_bytes) {
    const at::ScalarType type = input.scalar_type();
    if (type != at::kBFloat16 && type != at::kFloat) return false;
    if (piece_bytes % 16 != 0 || lane_.ranks > kMostDirectRanks ||
        piece_bytes * lane_.ranks > kMostDirectBytes)
      return false;
    const auto aligned = [](const at::Tensor& tensor) {
      return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
    };
    if (!aligned(input) || !aligned(output)) {
      at::Tensor copy = at::empty_like(output);
      run_direct(call, op, copy, input.clone(), piece_bytes);
      output.copy_(copy);
      return true;
    }
    Direct args;
    args.call = call;
    args.element = type == at::kBFloat16 ? DirectElement::bf16 : DirectElement::fp32;
    args.op = op == ReduceOp::sum ? DirectOp::sum : DirectOp::max;
    args.rank = lane_.rank;
    args.ranks = lane_.ranks;
    args.input = input.const_data_ptr();
    args.output = output.mutable_data_ptr();
    args.piece_bytes = piece_bytes;
    args.slot_bytes = kMostDirectBytes;
    for (int rank = 0; rank < lane_.ranks; ++rank) {
      args.slots[rank] = direct_->slot(rank, 0);
      args.controls[rank] = reinterpret_cast<DirectControl*>(direct_->slot(rank, 2));
    }
    direct(args, lane_.compute());
    check(cudaGetLastError(), "direct", lane_.axis);
    return true;
  }

  ControlGroup& group_;
  int exceptions_ = std::uncaught_exceptions();
  Lane lane_;
  std::unique_ptr<SharedBlock> direct_;  // two slots in turn, and the control
  Blocks gathers_;
  Blocks reduces_;
};

std::string obstacle_of(ControlGroup& group, at::Device device) {
  if (group.size() > kMostPieces) return cat("more than ", kMostPieces, " ranks");
  int device_of_rank = device.index();
  const std::string own = cat(host_identity(), "/", device_of_rank);
  const std::vector<std::string> all = group.all_gather(own);
  const std::string host = own.substr(0, own.rfind('/'));
  std::string obstacle;
  for (int rank = 0; rank < group.size() && obstacle.empty(); ++rank) {
    if (rank == group.rank()) continue;
    if (all[rank].substr(0, all[rank].rfind('/')) != host) {
      obstacle = "its ranks are on several hosts";
      break;
    }
    int can = 0;
    const int other = std::stoi(all[rank].substr(all[rank].rfind('/') + 1));
    const cudaError_t asked = cudaDeviceCanAccessPeer(&can, device_of_rank, other);
    if (asked != cudaSuccess) cudaGetLastError();  // not thrown: the others wait for this rank
    if (asked != cudaSuccess || can == 0)
      obstacle = cat("GPU ", device_of_rank, " cannot map the memory of GPU ", other);
  }
  if (obstacle.empty() && StreamOperations::find().batch == nullptr)
    obstacle = "the driver has no stream memory operations";
  for (const std::string& of_rank : group.all_gather(obstacle)) {
    if (!of_rank.empty()) return of_rank;
  }
  return "";
}

}  // namespace

PeerExchangeResult peer_exchange(ControlGroup& group, std::string axis, at::Device device) {
  std::string obstacle = obstacle_of(group, device);
  if (!obstacle.empty()) return {nullptr, std::move(obstacle)};
  auto exchange = std::make_unique<CudaPeerExchange>(group, std::move(axis), device);
  try {
    exchange->open_direct();
  } catch (const Error& error) {  // the same on every rank
    cudaGetLastError();
    return {nullptr, error.what()};
  }
  return {std::move(exchange), ""};
}

}  // namespace tptrain::comm
