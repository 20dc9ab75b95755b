// The CUDA half of cuda_backend.h. Collectives go on a stream of their own, tied to the caller's
// current stream by events on both sides, so that the host never waits and the calls can be
// captured in a CUDA graph. The pair of events makes the collective wait for what the caller has
// queued and the caller's stream wait for the collective: the caching allocator needs no
// record_stream, because memory is not reused before that. A collective that is only started
// leaves out the second event: Work::wait() makes up for it, and until then its buffers are the
// caller's to keep.
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/all_to_all_parts.h"
#include "comm/checked_communicator.h"
#include "comm/cuda/event_pool.h"
#include "comm/cuda_backend.h"
#include "comm/nccl_library.h"
#include "comm/nccl_status.h"
#include "device/cuda/architectures.h"
#include "device/gpu_assignment.h"
#include "device/gpu_report.h"
#include "device/gpu_support.h"

namespace tptrain::comm {

namespace {

constexpr std::chrono::microseconds kBetweenPolls(50);

void check_cuda(cudaError_t code, std::string_view call, std::string_view where) {
  if (code == cudaSuccess) return;
  throw CommError(problem(cat(call, " failed (", cudaGetErrorString(code), ")"))
                      .at(std::string(where))
                      .remedy("Compare nvidia-smi on this host with the GPUs the job was given "
                              "(CUDA_VISIBLE_DEVICES)."));
}

void check_nccl(ncclResult_t code, std::string_view call, std::string_view where, ncclComm_t comm) {
  if (code == ncclSuccess) return;
  const char* detail = ncclGetLastError(comm);
  throw CommError(
      problem(cat(call, " failed (", ncclGetErrorString(code), "): ", detail ? detail : ""))
          .at(std::string(where))
          .remedy("Where another rank failed before this one, its message names the cause; "
                  "NCCL_DEBUG=INFO prints what NCCL tried."));
}

// CheckedCommunicator has refused what is not among these; a type that it learns must be added
// here.
ncclDataType_t type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ncclFloat32;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kLong:
      return ncclInt64;
    default:
      break;
  }
  if (tensor.element_size() == 1) return ncclUint8;
  throw CommError(problem(cat("NCCL was given a tensor of ", at::toString(tensor.scalar_type())))
                      .must("be Float, BFloat16, Long (int64) or of one byte"));
}

ncclRedOp_t op_of(ReduceOp op) { return op == ReduceOp::sum ? ncclSum : ncclMax; }

// What a communicator owns on the device; freed in reverse.
struct NcclHandles {
  cudaStream_t stream = nullptr;
  cudaEvent_t inputs_ready = nullptr;
  cudaEvent_t done = nullptr;
  ncclComm_t comm = nullptr;
  void* barrier_word = nullptr;
  int exceptions = std::uncaught_exceptions();

  NcclHandles() = default;
  NcclHandles(const NcclHandles&) = delete;
  NcclHandles& operator=(const NcclHandles&) = delete;
  ~NcclHandles() {
    // In the wake of an exception a collective or a push may be under way that the other ranks
    // never join. What frees memory waits for it (ncclCommAbort ends NCCL's own kernels, but frees
    // as well), and would hide the error behind a hang: all is left to the end of the process.
    if (comm != nullptr) forget_nccl(comm);
    if (std::uncaught_exceptions() > exceptions) return;
    if (comm != nullptr) ncclCommDestroy(comm);
    if (barrier_word != nullptr) cudaFree(barrier_word);
    if (done != nullptr) cudaEventDestroy(done);
    if (inputs_ready != nullptr) cudaEventDestroy(inputs_ready);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
};

class NcclWork final : public Work {
 public:
  NcclWork(EventPool::Event done, std::string axis, at::Device device)
      : done_(std::move(done)), axis_(std::move(axis)), device_(device) {}
  cudaEvent_t done() const { return done_.get(); }
  void wait() override {
    const cudaStream_t current = c10::cuda::getCurrentCUDAStream(device_.index()).stream();
    check_cuda(cudaStreamWaitEvent(current, done_.get(), 0), "cudaStreamWaitEvent", axis_);
  }

 private:
  EventPool::Event done_;
  std::string axis_;
  at::Device device_;
};

class NcclCommunicator final : public CheckedCommunicator {
 public:
  NcclCommunicator(ControlGroup& group, std::string axis, at::Device device,
                   std::unique_ptr<PeerExchange> peers)
      : CheckedCommunicator(std::move(axis), group.rank(), group.size(), device, group.board()),
        device_(device),
        peers_(std::move(peers)) {
    int least = 0;
    int greatest = 0;
    check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest),
               "cudaDeviceGetStreamPriorityRange", name());
    check_cuda(cudaStreamCreateWithPriority(&on_.stream, cudaStreamNonBlocking, greatest),
               "cudaStreamCreateWithPriority", name());
    for (cudaEvent_t* event : {&on_.inputs_ready, &on_.done}) {
      check_cuda(cudaEventCreateWithFlags(event, cudaEventDisableTiming),
                 "cudaEventCreateWithFlags", name());
    }
    check_cuda(cudaMalloc(&on_.barrier_word, sizeof(int64_t)), "cudaMalloc", name());
    check_cuda(cudaMemset(on_.barrier_word, 0, sizeof(int64_t)), "cudaMemset", name());

    // In-switch sums (NVLS) need multicast memory, which many containers and virtual machines do
    // not grant; a user who has it can set the variable.
    setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
    // Started collectives of dp run beside those of tp: two communicators on one GPU. Their kernels
    // must be launched in the same order on every rank, or each may hold what the other waits for;
    // the hosts' order is the same, and this makes it the launches' order (NCCL 2.26 and later).
    setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", /*overwrite=*/0);
    std::string id_bytes(sizeof(ncclUniqueId), '\0');
    agree(group, [&] {
      if (rank() != 0) return;
      ncclUniqueId id;
      check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId", name(), nullptr);
      std::memcpy(id_bytes.data(), &id, sizeof id);
    });
    id_bytes = group.broadcast(id_bytes, 0);
    ncclUniqueId id;
    std::memcpy(&id, id_bytes.data(), sizeof id);
    check_nccl(ncclCommInitRank(&on_.comm, size(), id, rank()), "ncclCommInitRank", name(),
               nullptr);
    remember_nccl(on_.comm, name());
  }

  void barrier() override {
    write_on_board("barrier", 0);
    queue("ncclAllReduce", [&] {
      return ncclAllReduce(on_.barrier_word, on_.barrier_word, 1, ncclInt64, ncclSum, on_.comm,
                           on_.stream);
    });
    while (cudaStreamQuery(on_.stream) == cudaErrorNotReady) {
      throw_if_failed();
      std::this_thread::sleep_for(kBetweenPolls);
    }
    check_cuda(cudaStreamSynchronize(on_.stream), "cudaStreamSynchronize", name());
  }

  void throw_if_failed() override {
    ncclResult_t status = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(on_.comm, &status), "ncclCommGetAsyncError", name(), on_.comm);
    if (status == ncclInProgress) return;
    check_nccl(status, "a collective of NCCL", name(), on_.comm);
  }

  std::unique_ptr<PiecewiseGather> gather_in_pieces(const at::Tensor& input) override {
    const int64_t bytes = bytes_of(input) * size();
    if (!peers_) return Communicator::gather_in_pieces(input);
    if (bytes <= kMostDirectBytes) return gather_at_once(input);
    check_tensor("gather_in_pieces", "input", input, Elements::moved);
    write_on_board("all_gather in pieces", bytes);
    ++counters_.all_gathers;
    ++counters_.pushes;
    counters_.bytes += bytes;
    return peers_->gather_in_pieces(input);
  }
  std::unique_ptr<PiecewiseReduce> reduce_in_pieces(at::IntArrayRef piece,
                                                    const at::TensorOptions& options) override {
    int64_t bytes = static_cast<int64_t>(options.dtype().itemsize()) * size();
    for (const int64_t n : piece) bytes *= n;
    if (!peers_) return Communicator::reduce_in_pieces(piece, options);
    if (bytes <= kMostDirectBytes) return reduce_at_once(piece, options);
    ++counters_.reduce_scatters;
    ++counters_.pushes;
    write_on_board("reduce_scatter in pieces", bytes);
    counters_.bytes += bytes;
    return peers_->reduce_in_pieces(piece, options);
  }

 private:
  // Queues one NCCL call behind the work of the current stream so far; `done` is recorded after it.
  template <typename Call>
  void begin(const char* what, cudaEvent_t done, const Call& call) {
    const cudaStream_t current = c10::cuda::getCurrentCUDAStream(device_.index()).stream();
    check_cuda(cudaEventRecord(on_.inputs_ready, current), "cudaEventRecord", name());
    check_cuda(cudaStreamWaitEvent(on_.stream, on_.inputs_ready, 0), "cudaStreamWaitEvent", name());
    check_nccl(call(), what, name(), on_.comm);
    check_cuda(cudaEventRecord(done, on_.stream), "cudaEventRecord", name());
  }

  // And before what the current stream gets next.
  template <typename Call>
  void queue(const char* what, const Call& call) {
    begin(what, on_.done, call);
    const cudaStream_t current = c10::cuda::getCurrentCUDAStream(device_.index()).stream();
    check_cuda(cudaStreamWaitEvent(current, on_.done, 0), "cudaStreamWaitEvent", name());
  }

  template <typename Call>
  std::unique_ptr<Work> start(const char* what, const Call& call) {
    auto work = std::make_unique<NcclWork>(events_.take(name()), name(), device_);
    begin(what, work->done(), call);
    return work;
  }

  void run_all_reduce(at::Tensor& tensor, ReduceOp op) override {
    if (peers_ && peers_->all_reduce(tensor, op)) return;
    queue("ncclAllReduce", [&] {
      return ncclAllReduce(tensor.const_data_ptr(), tensor.data_ptr(), tensor.numel(),
                           type_of(tensor), op_of(op), on_.comm, on_.stream);
    });
  }
  ncclResult_t reduce_scatter_call(at::Tensor& output, const at::Tensor& input, ReduceOp op) {
    return ncclReduceScatter(input.const_data_ptr(), output.data_ptr(), output.numel(),
                             type_of(output), op_of(op), on_.comm, on_.stream);
  }
  ncclResult_t all_gather_call(at::Tensor& output, const at::Tensor& input) {
    return ncclAllGather(input.const_data_ptr(), output.data_ptr(), input.numel(), type_of(input),
                         on_.comm, on_.stream);
  }
  void run_reduce_scatter(at::Tensor& output, const at::Tensor& input, ReduceOp op) override {
    if (peers_ && op == ReduceOp::sum && peers_->reduce_scatter(output, input)) return;
    queue("ncclReduceScatter", [&] { return reduce_scatter_call(output, input, op); });
  }
  void run_all_gather(at::Tensor& output, const at::Tensor& input) override {
    if (peers_ && peers_->all_gather(output, input)) return;
    queue("ncclAllGather", [&] { return all_gather_call(output, input); });
  }
  std::unique_ptr<Work> run_start_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                                                 ReduceOp op) override {
    if (peers_ && op == ReduceOp::sum) {
      if (auto work = peers_->start_reduce_scatter(output, input)) {
        ++counters_.pushes;
        return work;
      }
    }
    return start("ncclReduceScatter", [&] { return reduce_scatter_call(output, input, op); });
  }
  std::unique_ptr<Work> run_start_all_gather(at::Tensor& output, const at::Tensor& input) override {
    if (peers_) {
      ++counters_.pushes;
      return peers_->start_all_gather(output, input);
    }
    return start("ncclAllGather", [&] { return all_gather_call(output, input); });
  }
  void run_broadcast(at::Tensor& tensor, int root) override {
    queue("ncclBroadcast", [&] {
      return ncclBroadcast(tensor.const_data_ptr(), tensor.data_ptr(), tensor.numel(),
                           type_of(tensor), root, on_.comm, on_.stream);
    });
  }

  void run_all_to_all(at::Tensor& output, const at::Tensor& input,
                      at::IntArrayRef counts) override {
    const AllToAllParts parts(counts, rank(), size());
    const int64_t width = input.element_size();
    const char* from = static_cast<const char*>(input.const_data_ptr());
    char* to = static_cast<char*>(output.data_ptr());
    queue("ncclSend and ncclRecv", [&] {
      ncclResult_t code = ncclGroupStart();
      for (int r = 0; r < size() && code == ncclSuccess; ++r) {
        const auto i = static_cast<size_t>(r);
        if (parts.sent[i] > 0)
          code = ncclSend(from + parts.send_begin[i] * width, parts.sent[i], type_of(input), r,
                          on_.comm, on_.stream);
        if (parts.received[i] > 0 && code == ncclSuccess)
          code = ncclRecv(to + parts.receive_begin[i] * width, parts.received[i], type_of(output),
                          r, on_.comm, on_.stream);
      }
      const ncclResult_t ended = ncclGroupEnd();
      return code == ncclSuccess ? ended : code;
    });
  }

  at::Device device_;
  NcclHandles on_;
  std::unique_ptr<PeerExchange> peers_;  // null: NCCL carries everything
  EventPool events_;
};

/// What tells a GPU from the others of the job, and where it sits.
struct GpuIdentity {
  std::string uuid;
  std::string pci_bus_id;
};
GpuIdentity identity_of(int device_index) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, device_index), "cudaGetDeviceProperties",
             "device mesh");
  std::array<char, 32> bus_id = {};
  check_cuda(cudaDeviceGetPCIBusId(bus_id.data(), bus_id.size(), device_index),
             "cudaDeviceGetPCIBusId", "device mesh");
  return {std::string(properties.uuid.bytes, sizeof properties.uuid.bytes), bus_id.data()};
}

void check_loaded_driver() {
  int driver = 0;
  int runtime = 0;
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion", "device mesh");
  check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion", "device mesh");
  device::check_driver(driver, runtime, "");
}

int visible_gpus() {
  int gpus = 0;
  const cudaError_t counted = cudaGetDeviceCount(&gpus);
  if (counted == cudaErrorInsufficientDriver) check_loaded_driver();
  if (counted == cudaErrorNoDevice || counted == cudaErrorInsufficientDriver) return 0;
  check_cuda(counted, "cudaGetDeviceCount", "device mesh");
  return gpus;
}

/// Of the device that is current.
device::GpuSupport support_of(int device_index) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, device_index), "cudaGetDeviceProperties",
             "device mesh");
  return {.name = properties.name,
          .capability = properties.major * 10 + properties.minor,
          .runs_this_program = device::current_gpu_runs_this_program()};
}

}  // namespace

NcclLibrary nccl_library() {
  int version = 0;
  const bool known = ncclGetVersion(&version) == ncclSuccess;
  return {.loaded = known ? device::nccl_version_text(version) : "",
          .built = device::nccl_version_text(NCCL_VERSION_CODE)};
}

BoundGpu bind_gpu(MpiSession& session) {
  int index = 0;
  GpuIdentity own;
  agree(session, [&] {
    index = device::gpu_of_rank(session.local_rank(), session.local_size(), visible_gpus());
    check_cuda(cudaSetDevice(index), "cudaSetDevice", "device mesh");
    device::check_gpu_supported(support_of(index), device::compiled_architectures());
    own = identity_of(index);
  });
  const std::vector<std::string> uuids = session.all_gather(own.uuid);
  agree(session, [&] { device::check_gpus_distinct(uuids); });
  // All work of this thread goes to one stream that is not the default one, which no graph can
  // capture and which would wait for every other. Of high priority: what runs beside the model
  // (AdamW of later blocks) takes what is left of the device, not half of it (Llama-3-8B on two
  // H200: tp 2 412.7 -> 409.7 ms, dp 2 796.7 -> 792.1 ms).
  const auto device = static_cast<at::DeviceIndex>(index);
  if (c10::cuda::getCurrentCUDAStream(device) == c10::cuda::getDefaultCUDAStream(device))
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device));
  return {.device = at::Device(at::kCUDA, device),
          .host_gpus = session.all_gather_on_host(own.pci_bus_id)};
}

std::unique_ptr<Communicator> nccl_communicator(ControlGroup& group, std::string name,
                                                at::Device device,
                                                std::unique_ptr<PeerExchange> peers) {
  return std::make_unique<NcclCommunicator>(group, std::move(name), device, std::move(peers));
}

}  // namespace tptrain::comm
