// bench_comm_gpu: three ways to gather and to sum between the GPUs of one host: this program's
// pushes (comm/peer_exchange.h), NCCL's kernels, and NCCL's copy engines (symmetric windows,
// NCCL_CTA_POLICY_ZERO; a sum is an all-to-all by copy engines and an addition, since they cannot
// add).
//   mpirun -n 2 build/cuda/benchmarks/bench_comm_gpu [MiB OF THE FULL TENSOR ...]
// Each row: the collective alone, and beside products that last longer than it: by how much it
// makes them longer is what it costs a step. Median of some repeats, of the slowest rank; the three
// ways take turns. Results of all three are compared bit by bit first.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/text.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "device/gpu_environment.h"

namespace {

using namespace tptrain;

void check(ncclResult_t code, const char* call) {
  if (code != ncclSuccess) throw std::runtime_error(cat(call, ": ", ncclGetErrorString(code)));
}

/// Memory and collectives of NCCL's copy engines.
class Windows {
 public:
  Windows(comm::MpiSession& session, at::Device device)
      : device_(device),
        ranks_(session.size()),
        stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {
    std::string bytes(sizeof(ncclUniqueId), '\0');
    ncclUniqueId id;
    if (session.rank() == 0) {
      check(ncclGetUniqueId(&id), "ncclGetUniqueId");
      std::memcpy(bytes.data(), &id, sizeof id);
    }
    bytes = session.broadcast(bytes, 0);
    std::memcpy(&id, bytes.data(), sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.CTAPolicy = NCCL_CTA_POLICY_ZERO;
    check(ncclCommInitRankConfig(&comm_, ranks_, id, session.rank(), &config),
          "ncclCommInitRankConfig");
  }

  /// Collective. Kept to the end of the process.
  at::Tensor tensor(int64_t numel, at::ScalarType type) {
    const size_t bytes = static_cast<size_t>(numel) * at::elementSize(type);
    void* memory = nullptr;
    ncclWindow_t window;
    check(ncclMemAlloc(&memory, bytes), "ncclMemAlloc");
    check(ncclCommWindowRegister(comm_, memory, bytes, &window, NCCL_WIN_COLL_SYMMETRIC),
          "ncclCommWindowRegister");
    return at::from_blob(memory, {numel}, at::TensorOptions(type).device(device_));
  }

  void all_gather(at::Tensor& whole, const at::Tensor& piece) {
    begin();
    check(ncclAllGather(piece.const_data_ptr(), whole.data_ptr(),
                        static_cast<size_t>(piece.nbytes()), ncclUint8, comm_, stream_.stream()),
          "ncclAllGather");
  }
  /// `arrived`: a window of the size of `whole`.
  void reduce_scatter(at::Tensor& sum, const at::Tensor& whole, at::Tensor& arrived) {
    begin();
    check(ncclAlltoAll(whole.const_data_ptr(), arrived.data_ptr(),
                       static_cast<size_t>(sum.nbytes()), ncclUint8, comm_, stream_.stream()),
          "ncclAlltoAll");
    const c10::cuda::CUDAStreamGuard guard(stream_);
    const int64_t over_ranks = 0;
    at::sum_out(sum, arrived.view({ranks_, -1}), at::IntArrayRef(&over_ranks, 1));
  }
  void wait() {
    done_.record(stream_);
    done_.block(at::cuda::getCurrentCUDAStream());
  }

 private:
  void begin() {
    ready_.record(at::cuda::getCurrentCUDAStream());
    ready_.block(stream_);
  }

  at::Device device_;
  int ranks_;
  c10::cuda::CUDAStream stream_;
  ncclComm_t comm_ = nullptr;
  at::cuda::CUDAEvent ready_, done_;
};

/// A collective that is started, and waited for later.
struct Way {
  const char* name;
  std::function<std::function<void()>()> start;
};

constexpr int kRepeats = 9;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(comm::MpiSession& session, at::Device device)
      : session_(session),
        x_(at::randn({8192, 4096}, at::TensorOptions(at::kBFloat16).device(device))),
        w_(at::randn({4096, 14336}, x_.options())),
        y_(at::empty({8192, 14336}, x_.options())) {}

  void compare(const char* name, int64_t mib, const std::vector<Way>& ways) {
    std::vector<std::vector<double>> alone(ways.size()), beside(ways.size());
    std::vector<double> products;
    for (size_t i = 0; i < ways.size(); ++i) time(ways[i], 0);  // connections, blocks
    double longest = 0;
    for (const Way& way : ways) longest = std::max(longest, time(way, 0));
    const int count = 2 + static_cast<int>(longest * 1.3 / (time({}, 8) / 8));
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      products.push_back(time({}, count));
      for (size_t i = 0; i < ways.size(); ++i) {
        alone[i].push_back(time(ways[i], 0));
        beside[i].push_back(time(ways[i], count));
      }
    }
    if (session_.rank() != 0) return;
    for (size_t i = 0; i < ways.size(); ++i) {
      const double ms = median(alone[i]);
      const int ranks = session_.size();
      const double gb = static_cast<double>(mib << 20) * (ranks - 1) / ranks * 1e-9;
      std::printf(
          "%-15s %6ld MiB  %-20s alone %8.3f ms (%6.1f GB/s)   %d products %8.3f ms, with "
          "it %+7.3f ms\n",
          name, mib, ways[i].name, ms, gb / ms * 1e3, count, median(products),
          median(beside[i]) - median(products));
    }
    std::fflush(stdout);
  }

 private:
  // Milliseconds of the slowest rank.
  double time(const Way& way, int products) {
    const c10::cuda::CUDAStream stream = at::cuda::getCurrentCUDAStream();
    stream.synchronize();
    session_.barrier();
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    begin.record(stream);
    const std::function<void()> wait = way.start ? way.start() : std::function<void()>();
    for (int i = 0; i < products; ++i) at::mm_out(y_, x_, w_);
    if (wait) wait();
    end.record(stream);
    stream.synchronize();
    return static_cast<double>(session_.max(static_cast<int64_t>(begin.elapsed_time(end) * 1e6))) *
           1e-6;
  }

  comm::MpiSession& session_;
  at::Tensor x_, w_, y_;
};

std::function<void()> waiting_for(std::unique_ptr<comm::Work> work) {
  const std::shared_ptr<comm::Work> shared = std::move(work);
  return [shared] { shared->wait(); };
}

void check_same(const at::Tensor& a, const at::Tensor& b, const char* what) {
  if (!at::equal(a, b)) throw std::runtime_error(cat(what, ": results differ"));
}

}  // namespace

int main(int argc, char** argv) {
  device::ask_for_queues();
  comm::MpiSession session(&argc, &argv);
  const comm::MeshShape shape = {.dp_size = session.size(), .tp_size = 1};
  comm::DeviceMesh pushing(session, shape, comm::DeviceType::cuda);
  comm::DeviceMesh plain(session, shape, comm::DeviceType::cuda, {},
                         {.tp = comm::PeerCopies::off, .dp = comm::PeerCopies::off});
  const auto say = [&](const std::string& line) {
    if (session.rank() == 0) std::printf("%s\n", line.c_str());
  };
  say(cat(pushing.transport(), "; NCCL ", NCCL_VERSION_CODE));
  std::unique_ptr<Windows> windows;
  try {
    windows = std::make_unique<Windows>(session, pushing.device());
    windows->tensor(1 << 20, at::kFloat);
  } catch (const std::runtime_error& error) {  // the same on every rank
    say(cat("NCCL's copy engines cannot be had here: ", error.what()));
    windows.reset();
  }
  const auto tensor = [&](int64_t numel, at::ScalarType type) {
    return windows ? windows->tensor(numel, type)
                   : at::empty({numel}, at::TensorOptions(type).device(pushing.device()));
  };
  std::vector<int64_t> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(std::atoll(argv[i]));
  // Llama-3-8B at 8192 x 1 on two GPUs: a hidden state; a layer's parameters, and its gradients.
  if (sizes.empty()) sizes = {64, 416, 832};
  Bench bench(session, pushing.device());
  const int ranks = session.size();
  for (const int64_t mib : sizes) {
    const int64_t bytes = (mib << 20) / ranks;
    at::Tensor piece = tensor(bytes / 2, at::kBFloat16);
    at::Tensor whole = tensor(bytes / 2 * ranks, at::kBFloat16);
    at::Tensor pushed_whole = at::empty_like(whole), plain_whole = at::empty_like(whole);
    piece.normal_();
    std::vector<Way> gathers = {
        {"pushes", [&] { return waiting_for(pushing.dp().start_all_gather(pushed_whole, piece)); }},
        {"NCCL", [&] { return waiting_for(plain.dp().start_all_gather(plain_whole, piece)); }}};
    if (windows) {
      gathers.push_back({"NCCL, copy engines", [&] {
                           windows->all_gather(whole, piece);
                           return std::function<void()>([&] { windows->wait(); });
                         }});
    }
    bench.compare("all-gather", mib, gathers);
    check_same(plain_whole, pushed_whole, "all-gather, NCCL against pushes");
    if (windows) check_same(whole, pushed_whole, "all-gather, copy engines against pushes");

    at::Tensor terms = tensor(bytes / 4 * ranks, at::kFloat);
    at::Tensor arrived = tensor(bytes / 4 * ranks, at::kFloat);
    at::Tensor sum = at::empty({bytes / 4}, terms.options());
    at::Tensor pushed_sum = at::empty_like(sum), plain_sum = at::empty_like(sum);
    terms.normal_();
    const auto scatter = [&](comm::DeviceMesh& mesh, at::Tensor& to) {
      return waiting_for(mesh.dp().start_reduce_scatter(to, terms, comm::ReduceOp::sum));
    };
    std::vector<Way> sums = {{"pushes", [&] { return scatter(pushing, pushed_sum); }},
                             {"NCCL", [&] { return scatter(plain, plain_sum); }}};
    if (windows) {
      sums.push_back({"NCCL, copy engines", [&] {
                        windows->reduce_scatter(sum, terms, arrived);
                        return std::function<void()>([&] { windows->wait(); });
                      }});
    }
    bench.compare("reduce-scatter", mib, sums);
    if (ranks > 2) continue;  // NCCL's kernels add in another order
    check_same(plain_sum, pushed_sum, "reduce-scatter, NCCL against pushes");
    if (windows) check_same(sum, pushed_sum, "reduce-scatter, copy engines against pushes");
  }
  return 0;
}
