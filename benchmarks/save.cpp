// A save of a state of random values: how long training waits for it, how long it takes, what it
// costs the steps beside it, and how fast it is verified; against the disk (dd with fsync), hashing
// on the cores that a save uses, and a save at once, all in the same run.
//   mpirun -n 2 --oversubscribe --bind-to none build/cpu/benchmarks/bench_save --gb 1 --dir /tmp/s
//   build/cuda/benchmarks/bench_save --gb 5.6 --dir /tmp/s --device cuda
// --gb is of a rank. A step is as many products of matrices as make up its 6 FLOP a parameter and
// token: 12 bytes of state are a parameter; --tokens are 16,384 on a GPU (Qwen2.5-0.5B in
// bench_gpu_step), and on the CPU 128, one short sequence.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/background.h"
#include "base/chunk_hash.h"
#include "base/text.h"
#include "comm/mpi_session.h"
#include "train/saver.h"

namespace {

using namespace tptrain;
namespace fs = std::filesystem;

struct Arguments {
  double gb = 1;
  std::string directory = "bench_save";
  std::string device = "cpu";
  int64_t tokens = 0;
};

using Clock = std::chrono::steady_clock;
double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// One tensor of three kinds, cut over the ranks by rows.
sharding::StateDict random_state(const comm::MpiSession& session, double gb, at::Device device) {
  constexpr int64_t kColumns = 1024;
  constexpr int64_t kTensors = 8;
  const auto rows = static_cast<int64_t>(gb * 1e9 / 4 / 3 / kTensors / kColumns);
  sharding::StateDict state;
  for (int64_t t = 0; t < kTensors; ++t) {
    const std::string name = cat("model.layers.", t, ".weight");
    const auto spec = sharding::slice_of(name, {rows * session.size(), kColumns}, 0,
                                         rows * session.rank(), rows * (session.rank() + 1));
    for (const char* kind : {sharding::kMaster, "exp_avg", "exp_avg_sq"})
      state.pieces.push_back(
          {.kind = kind,
           .spec = spec,
           .begin = 0,
           .end = rows * kColumns,
           .save = true,
           .data = at::randn({rows * kColumns}, at::TensorOptions().device(device))});
  }
  return state;
}

class Step {
 public:
  Step(const Arguments& arguments, at::Device device) {
    const int64_t size = device.is_cuda() ? 8192 : 1024;
    const int64_t tokens = arguments.tokens > 0 ? arguments.tokens : device.is_cuda() ? 16384 : 128;
    const double flops = 6 * arguments.gb * 1e9 / 12 * static_cast<double>(tokens);
    const auto of_one = 2 * std::pow(static_cast<double>(size), 3);
    products_ = std::max<int64_t>(1, std::llround(flops / of_one));
    const auto options =
        at::TensorOptions().device(device).dtype(device.is_cuda() ? at::kBFloat16 : at::kFloat);
    a_ = at::randn({size, size}, options);
    out_ = at::empty_like(a_);
  }
  double run() {
    const Clock::time_point begin = Clock::now();
    for (int64_t i = 0; i < products_; ++i) at::mm_out(out_, a_, a_);
    out_[0][0].item<float>();
    return since(begin);
  }

 private:
  int64_t products_;
  at::Tensor a_, out_;
};

/// Seconds that dd takes to write as many bytes, with fsync.
double seconds_of_dd(comm::MpiSession& session, const fs::path& directory, int64_t bytes) {
  const std::string file = (directory / cat("dd-", session.rank())).string();
  const int64_t blocks = bytes / (int64_t{32} << 20);
  double best = 0;
  for (const char* flags : {"oflag=direct conv=fsync", "conv=fsync"}) {
    session.barrier();
    const Clock::time_point begin = Clock::now();
    const int code = std::system(
        cat("dd if=/dev/zero of=", file, " bs=32M count=", blocks, " ", flags, " 2>/dev/null")
            .c_str());
    session.barrier();
    const double seconds = since(begin);
    if (code == 0 && (best == 0 || seconds < best)) best = seconds;
    fs::remove(file);
  }
  return best;
}

/// Of as many bytes in memory, by the threads that a save has.
double seconds_of_hashing(comm::MpiSession& session, int64_t bytes) {
  const std::vector<char> chunk(static_cast<size_t>(kHashChunkBytes), 'x');
  session.barrier();
  const Clock::time_point begin = Clock::now();
  ChunkHasher hasher;
  for (int64_t i = 0; i < bytes / kHashChunkBytes; ++i) hasher.update(chunk.data(), chunk.size());
  hasher.digests();
  session.barrier();
  return since(begin);
}

struct Result {
  train::Saved saved;
  double removal_s = 0;        // of the checkpoint before it
  std::vector<double> beside;  // steps
};

Result saved_beside(comm::MpiSession& session, train::Saver& saver,
                    const sharding::StateDict& state, Step& step, int number,
                    std::vector<train::Saved>& done) {
  using Progress = checkpoint::CheckpointStore::Progress;
  Result result;
  done.clear();
  session.barrier();  // as the collectives of a step: else a save would wait for the slower rank
  saver.save(state, {.step = number, .model_json = "{}"});
  while (saver.is_saving()) {
    result.beside.push_back(step.run());
    const Progress own = saver.progress();
    if (session.max(own == Progress::failed) != 0 || session.max(own != Progress::done) == 0)
      saver.continue_save(session.max(own == Progress::failed) != 0);
    saver.let_state_change();  // as the update of the next step does
  }
  result.saved = done.at(0);
  result.removal_s = saver.last_save_s().value() - result.saved.save_s;
  return result;
}

void forget_pages_of(const fs::path& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    const int file = ::open(entry.path().c_str(), O_RDONLY);
    if (file < 0) continue;
    ::fsync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
}

void line(const comm::MpiSession& session, const std::string& text) {
  if (session.rank() == 0) std::printf("%s\n", text.c_str());
}

std::string rate(double seconds, int64_t bytes) {
  return cat(fixed(seconds, 2), " s, ", fixed(static_cast<double>(bytes) / 1e9 / seconds, 2),
             " GB/s");
}

void measure(comm::MpiSession& session, const Arguments& arguments) {
  const at::Device device =
      arguments.device == "cuda"
          ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(session.local_rank()))
          : at::Device(at::kCPU);
  const fs::path directory = arguments.directory;
  if (session.rank() == 0) fs::create_directories(directory);
  session.barrier();
  Step step(arguments, device);
  const sharding::StateDict state = random_state(session, arguments.gb, device);
  for (int i = 0; i < 3; ++i) step.run();

  Logger log({.rank = session.rank(), .console = false, .file = (directory / "log").string()});
  checkpoint::CheckpointStore store(session, {.directory = directory / "checkpoints", .keep = 1});
  train::Saver at_once(store, session, log, train::OnFailure::stop);
  const Clock::time_point memory_begin = Clock::now();
  zero::StateSnapshot snapshot(state, device);
  line(session, cat("memory for the copy       ", fixed(since(memory_begin), 2), " s, once"));
  std::vector<train::Saved> done;
  train::Saver beside(store, session, log, train::OnFailure::stop, &snapshot,
                      [&](const train::Saved& saved) { done.push_back(saved); });

  const Clock::time_point begin = Clock::now();
  at_once.save(state, {.step = 1, .model_json = "{}"});
  const double at_once_s = since(begin);
  const int64_t bytes = store.save_bytes();
  const int64_t of_rank = bytes / session.size();
  const double dd_s = seconds_of_dd(session, directory, of_rank);
  const double hash_s = seconds_of_hashing(session, of_rank);
  line(session, cat("disk (dd with fsync)      ", rate(dd_s, bytes)));
  line(session, cat("hashing, ", session.size(), " ranks          ", rate(hash_s, bytes)));
  line(session, cat("save at once              ", rate(at_once_s, bytes)));
  for (int number = 2; number < 5; ++number) {
    std::vector<double> alone;
    for (int i = 0; i < (device.is_cuda() ? 20 : 5); ++i) alone.push_back(step.run());
    const Result result = saved_beside(session, beside, state, step, number, done);
    const double save_s = result.saved.save_s;
    line(session,
         cat("save beside the steps     ", rate(save_s, bytes), " = ",
             fixed(100 * std::max(dd_s, hash_s) / save_s, 0),
             " % of the slower of the two; waited ", fixed(result.saved.stall_s, 3),
             " s = ", fixed(100 * result.saved.stall_s / at_once_s, 1),
             " % of a save at once; steps ", fixed(1e3 * median(result.beside), 1), " ms against ",
             fixed(1e3 * median(alone), 1), " ms alone (", result.beside.size(),
             " steps); then the one before removed in ", fixed(result.removal_s, 2), " s"));
  }
  session.barrier();
  if (session.rank() != 0) return;
  const fs::path last = directory / "checkpoints/step-00000004";
  // A save goes past the page cache: the first reader waits for the disk, whoever it is. Hence both
  // ways of reading from the disk, and both from memory.
  for (const bool from_disk : {true, false}) {
    const auto seconds_of = [&](const std::function<void()>& read) {
      if (from_disk) forget_pages_of(last);
      const Clock::time_point read_begin = Clock::now();
      read();
      return since(read_begin);
    };
    const double one_thread_s = seconds_of([&] {
      for (const auto& entry : fs::directory_iterator(last)) sha256_file(entry.path());
    });
    std::string problem;
    const double verify_s = seconds_of(
        [&] { problem = checkpoint::verify(last, checkpoint::Depth::contents).problem; });
    line(session,
         cat("verify, from ", from_disk ? "the disk    " : "memory      ", rate(verify_s, bytes),
             problem, "; one thread ", rate(one_thread_s, bytes), ": ",
             fixed(one_thread_s / verify_s, 1), " times, ", usable_cores(), " cores"));
  }
  fs::remove_all(directory);
}

}  // namespace

int main(int argc, char** argv) {
  comm::MpiSession session(&argc, &argv);
  Arguments arguments;
  CLI::App app("How long a save takes and what it costs the steps beside it.");
  app.add_option("--gb", arguments.gb, "of state, of a rank");
  app.add_option("--dir", arguments.directory, "where to save; is removed at the end");
  app.add_option("--device", arguments.device, "cpu or cuda");
  app.add_option("--tokens", arguments.tokens, "of a step");
  CLI11_PARSE(app, argc, argv);
  // As a training does.
  if (arguments.device == "cpu")
    at::set_num_threads(std::max(1, usable_cores() / session.local_size()));
  measure(session, arguments);
  return 0;
}
