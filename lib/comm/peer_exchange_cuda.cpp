#include <ATen/Functions.h>
#include <cuda_runtime_api.h>

#include <array>
#include <exception>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/cuda/direct.h"
#include "comm/cuda/peer_probe.h"
#include "comm/cuda/push_lane.h"
#include "comm/cuda/pushed_collectives.h"
#include "comm/cuda/shared_block.h"
#include "comm/cuda/sum_pieces.h"
#include "comm/peer_exchange.h"
#include "device/gpu_environment.h"
#include "device/gpu_links.h"
#include "device/gpu_report.h"

namespace tptrain::comm {

namespace {

void check(cudaError_t code, const char* call, const std::string& where) {
  check_peer_call(code, call, where);
}

// Of memory that another host, or another boot of this one, cannot mean.
std::string host_identity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

class PeerGather final : public PiecewiseGather {
 public:
  PeerGather(PushLane& lane, SharedBlock& block, const at::Tensor& input)
      : lane_(lane), block_(block), slot_(block.take()), input_(input), copied_(lane.event()) {
    std::vector<int64_t> sizes = input.sizes().vec();
    sizes.at(0) *= lane.ranks();
    whole_ = at::from_blob(block.slot(lane.rank(), slot_), sizes, input.options());
    arrived_.assign(static_cast<size_t>(lane.ranks()), false);
    const int64_t bytes = bytes_of(input);
    lane.follow_compute();
    for (int i = 1; i < lane.ranks(); ++i) {
      // Each rank begins with another peer: no link carries two pushes at once.
      lane.push(block, slot_, (lane.rank() + i) % lane.ranks(), lane.rank() * bytes,
                input.const_data_ptr(), bytes);
    }
    lane.copy(block.slot(lane.rank(), slot_) + lane.rank() * bytes, input.const_data_ptr(), bytes);
    check(cudaEventRecord(copied_.get(), lane.stream()), "cudaEventRecord", lane.axis());
  }
  PeerGather(const PeerGather&) = delete;
  PeerGather& operator=(const PeerGather&) = delete;
  ~PeerGather() override {
    try {
      for (int rank = 0; rank < lane_.ranks(); ++rank) wait(rank);
      lane_.release(block_, slot_, lane_.compute());
    } catch (const std::exception&) {
      // A stream that takes no more calls reports it at its next one, where it can be thrown.
    }
  }

  const at::Tensor& whole() const override { return whole_; }
  bool in_pieces() const override { return true; }
  void wait(int rank) override {
    if (arrived_.at(rank)) return;
    arrived_[rank] = true;
    if (rank == lane_.rank()) {
      check(cudaStreamWaitEvent(lane_.compute(), copied_.get(), 0), "cudaStreamWaitEvent",
            lane_.axis());
      return;
    }
    lane_.receive(block_, slot_, rank, lane_.compute());
  }

 private:
  PushLane& lane_;
  SharedBlock& block_;
  int slot_;
  at::Tensor input_;
  at::Tensor whole_;
  EventPool::Event copied_;
  std::vector<bool> arrived_;
};

class PeerReduce final : public PiecewiseReduce {
 public:
  PeerReduce(PushLane& lane, SharedBlock& block, at::IntArrayRef piece,
             const at::TensorOptions& options)
      : lane_(lane),
        block_(block),
        slot_(block.take()),
        piece_(piece.vec()),
        pushed_(lane.event()) {
    std::vector<int64_t> sizes = piece_;
    sizes.at(0) *= lane.ranks();
    whole_ = at::empty(sizes, options);
  }
  PeerReduce(const PeerReduce&) = delete;
  PeerReduce& operator=(const PeerReduce&) = delete;

  const at::Tensor& whole() const override { return whole_; }
  bool in_pieces() const override { return true; }
  void send(int rank) override {
    ++sent_;
    if (rank == lane_.rank()) return;
    const at::Tensor part = whole_.narrow(0, rank * piece_[0], piece_[0]);
    lane_.follow_compute();
    lane_.push(block_, slot_, rank, lane_.rank() * bytes_of(part), part.const_data_ptr(),
               bytes_of(part));
  }
  at::Tensor finish() override {
    if (sent_ != lane_.ranks()) {
      throw InternalError(problem(cat(lane_.axis(), ": a reduction ends with ", sent_, " of ",
                                      lane_.ranks(), " parts sent")));
    }
    check(cudaEventRecord(pushed_.get(), lane_.stream()), "cudaEventRecord", lane_.axis());
    lane_.receive(block_, slot_, lane_.compute());
    SumPieces sum;
    sum.pieces = lane_.ranks();
    const at::Tensor own = whole_.narrow(0, lane_.rank() * piece_[0], piece_[0]);
    const int64_t bytes = bytes_of(own);
    for (int rank = 0; rank < lane_.ranks(); ++rank) {
      sum.terms[rank] = rank == lane_.rank() ? own.const_data_ptr()
                                             : block_.slot(lane_.rank(), slot_) + rank * bytes;
    }
    at::Tensor result = at::empty(piece_, whole_.options());
    sum.total = result.mutable_data_ptr();
    sum.bf16 = result.scalar_type() == at::kBFloat16;
    sum.count = result.numel();
    sum_pieces(sum, lane_.compute());
    check(cudaGetLastError(), "sum_pieces", lane_.axis());
    lane_.release(block_, slot_, lane_.compute());
    // What was pushed from goes back to the allocator now.
    check(cudaStreamWaitEvent(lane_.compute(), pushed_.get(), 0), "cudaStreamWaitEvent",
          lane_.axis());
    whole_.reset();
    return result;
  }

 private:
  PushLane& lane_;
  SharedBlock& block_;
  int slot_;
  std::vector<int64_t> piece_;
  at::Tensor whole_;
  EventPool::Event pushed_;
  int sent_ = 0;
};

class CudaPeerExchange final : public PeerExchange {
 public:
  CudaPeerExchange(ControlGroup& group, const std::string& axis, at::Device device)
      : group_(group),
        lane_(axis, group.rank(), group.size(), device),
        pushed_(group, axis, device) {}
  // Collective, unless an exception ends this rank alone.
  ~CudaPeerExchange() override {
    const bool together = std::uncaught_exceptions() == exceptions_;
    if (!together) {
      // What is under way may wait for ranks that never come, and theirs for this one's memory: it
      // is left to the end of the process, which is near.
      for_each_block([](SharedBlock& block) { block.abandon(); });
      return;
    }
    cudaDeviceSynchronize();  // pushes of this rank; an error of the device has shown elsewhere
    for_each_block([](SharedBlock& block) { block.close(); });
    try {
      group_.barrier();
    } catch (const std::exception&) {  // another rank is gone: so will be this one
    }
  }

  std::unique_ptr<PiecewiseGather> gather_in_pieces(const at::Tensor& input) override {
    return std::make_unique<PeerGather>(
        lane_, block_of(gathers_, bytes_of(input) * lane_.ranks(), kGatherSlots), input);
  }
  std::unique_ptr<PiecewiseReduce> reduce_in_pieces(at::IntArrayRef piece,
                                                    const at::TensorOptions& options) override {
    int64_t bytes = static_cast<int64_t>(options.dtype().itemsize()) * lane_.ranks();
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
  std::unique_ptr<Work> start_all_gather(at::Tensor& output, const at::Tensor& input) override {
    return pushed().start_all_gather(output, input);
  }
  std::unique_ptr<Work> start_reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    return is_summed(input) ? pushed().start_reduce_scatter(output, input) : nullptr;
  }
  bool all_reduce(at::Tensor& tensor, ReduceOp op) override {
    return run_direct(DirectCall::all_reduce, op, tensor, tensor, bytes_of(tensor));
  }
  /// Opens the block of direct calls: throws, on every rank, where memory cannot be shared.
  void open_direct() {
    direct_ = std::make_unique<SharedBlock>(group_, lane_.axis(), kMostDirectBytes, /*slots=*/3);
  }

 private:
  using Blocks = std::vector<std::unique_ptr<SharedBlock>>;  // each larger than the one before

  template <typename Call>
  void for_each_block(const Call& call) {
    if (direct_) call(*direct_);
    if (pushed_.is_open()) call(pushed_.block());
    for (Blocks* blocks : {&gathers_, &reduces_}) {
      for (const auto& block : *blocks) call(*block);
    }
  }

  void refuse_in_capture(int64_t bytes) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(lane_.compute(), &status), "cudaStreamIsCapturing", lane_.axis());
    if (status == cudaStreamCaptureStatusNone) return;
    throw CommError(problem(cat("a push of ", human_bytes(bytes), " in a captured graph"))
                        .at(lane_.axis())
                        .must("have been made once before the capture"));
  }

  SharedBlock& block_of(Blocks& blocks, int64_t slot_bytes, int slots) {
    for (const auto& block : blocks) {
      if (block->slot_bytes() >= slot_bytes) return *block;
    }
    refuse_in_capture(slot_bytes);
    const int64_t aligned = (slot_bytes + 511) / 512 * 512;
    blocks.push_back(std::make_unique<SharedBlock>(group_, lane_.axis(), aligned, slots));
    return *blocks.back();
  }

  PushedCollectives& pushed() {
    if (!pushed_.is_open()) {
      refuse_in_capture(kPushSlotBytes);
      pushed_.open();
    }
    return pushed_;
  }

  static bool is_summed(const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kFloat;
  }

  // What decides is the same on every rank, as the call is. Where tensors lie is not: one that does
  // not begin at 16 bytes goes by a copy.
  bool run_direct(DirectCall call, ReduceOp op, at::Tensor& output, const at::Tensor& input,
                  int64_t piece_bytes) {
    if (call != DirectCall::all_gather && !is_summed(input)) return false;  // gathers only copy
    if (piece_bytes % 16 != 0 || lane_.ranks() > kMostDirectRanks ||
        piece_bytes * lane_.ranks() > kMostDirectBytes)
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
    args.element = input.scalar_type() == at::kBFloat16 ? DirectElement::bf16 : DirectElement::fp32;
    args.op = op == ReduceOp::sum ? DirectOp::sum : DirectOp::max;
    args.rank = lane_.rank();
    args.ranks = lane_.ranks();
    args.input = input.const_data_ptr();
    args.output = output.mutable_data_ptr();
    args.piece_bytes = piece_bytes;
    args.slot_bytes = kMostDirectBytes;
    for (int rank = 0; rank < lane_.ranks(); ++rank) {
      args.slots[rank] = direct_->slot(rank, 0);
      args.controls[rank] = reinterpret_cast<DirectControl*>(direct_->slot(rank, 2));
    }
    direct(args, lane_.compute());
    check(cudaGetLastError(), "direct", lane_.axis());
    return true;
  }

  ControlGroup& group_;
  int exceptions_ = std::uncaught_exceptions();
  PushLane lane_;  // of pieces
  PushedCollectives pushed_;
  std::unique_ptr<SharedBlock> direct_;  // two slots in turn, and the control
  Blocks gathers_;
  Blocks reduces_;
};

/// What a rank tells the others of itself before they look at each other.
struct PeerIdentity {
  std::string host;
  std::string pci_bus_id;
  int queues = 0;
};
std::vector<PeerIdentity> identities(ControlGroup& group, at::Device device) {
  std::array<char, 32> bus_id = {};
  // Not thrown: the others wait for this rank.
  if (cudaDeviceGetPCIBusId(bus_id.data(), bus_id.size(), device.index()) != cudaSuccess)
    cudaGetLastError();
  std::vector<PeerIdentity> all;
  for (const std::string& text : group.all_gather(
           cat(host_identity(), " ", bus_id.data(), " ", device::queues_of_device()))) {
    PeerIdentity identity;
    std::istringstream(text) >> identity.host >> identity.pci_bus_id >> identity.queues;
    all.push_back(std::move(identity));
  }
  return all;
}

std::string obstacle_between(const PeerIdentity& own, const PeerIdentity& other, int device,
                             PeerLinks links) {
  if (other.host != own.host) return "its ranks are on several hosts";
  if (!device::can_map(device, own.pci_bus_id, other.pci_bus_id))
    return cat("GPU ", own.pci_bus_id, " cannot map the memory of GPU ", other.pci_bus_id);
  if (links == PeerLinks::nvlink &&
      !device::joined_by_nvlink(device, own.pci_bus_id, other.pci_bus_id))
    return cat("no NVLink between GPU ", own.pci_bus_id, " and GPU ", other.pci_bus_id);
  return "";
}

std::string obstacle_of(ControlGroup& group, const std::vector<PeerIdentity>& all, int device,
                        PeerLinks links) {
  if (group.size() > kMostPieces) return cat("more than ", kMostPieces, " ranks");
  const PeerIdentity& own = all[group.rank()];
  std::string obstacle;
  if (own.queues < device::kQueuesOfPushes) {
    obstacle = cat("CUDA_DEVICE_MAX_CONNECTIONS is ", own.queues, ", and they need ",
                   device::kQueuesOfPushes);
  }
  for (int rank = 0; rank < group.size() && obstacle.empty(); ++rank) {
    if (rank != group.rank()) obstacle = obstacle_between(own, all[rank], device, links);
  }
  if (obstacle.empty() && StreamOperations::find(device).batch == nullptr)
    obstacle = "the driver has no stream memory operations";
  for (const std::string& of_rank : group.all_gather(obstacle)) {
    if (!of_rank.empty()) return of_rank;
  }
  return "";
}

// Throws, agreed, where memory cannot be shared at all.
std::string fault_between(ControlGroup& group, const std::string& axis, at::Device device,
                          const std::vector<PeerIdentity>& all, const WrapProbe& wrap) {
  std::unique_ptr<PeerProbe> probe = cuda_peer_probe(group, axis, device);
  if (wrap) probe = wrap(std::move(probe));
  std::vector<std::string> names;
  for (const PeerIdentity& identity : all)
    names.push_back(cat("GPU ", identity.pci_bus_id, " (", axis, " rank ", names.size(), ")"));
  return peer_fault(group, *probe, names);
}

}  // namespace

PeerExchangeResult peer_exchange(ControlGroup& group, const std::string& axis, at::Device device,
                                 PeerLinks links, const WrapProbe& wrap) {
  const std::vector<PeerIdentity> all = identities(group, device);
  std::string obstacle = obstacle_of(group, all, device.index(), links);
  if (!obstacle.empty()) return {.exchange = nullptr, .why_not = std::move(obstacle)};
  try {
    std::string fault = fault_between(group, axis, device, all, wrap);
    if (!fault.empty()) return {.exchange = nullptr, .why_not = std::move(fault), .faulty = true};
    auto exchange = std::make_unique<CudaPeerExchange>(group, axis, device);
    exchange->open_direct();
    return {.exchange = std::move(exchange), .why_not = ""};
  } catch (const Error& error) {  // the same on every rank
    cudaGetLastError();
    return {.exchange = nullptr, .why_not = error.what()};
  }
}

}  // namespace tptrain::comm
