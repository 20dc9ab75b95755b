// A model of the size users train, on this machine: the shape of Qwen2.5-0.5B with random weights,
// tp 2 x dp 2, ZeRO-3, sequences of 512 tokens, three steps. The peak of each rank, by the counting
// allocator and by the process's own high-water mark, against the forecast of `tptrain plan`.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "base/files.h"
#include "base/text.h"
#include "comm/device_mesh.h"
#include "kernels/cpu/counting_allocator.h"
#include "model/decoder_config.h"
#include "planner/plan.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "train/engine.h"

namespace tptrain::testing {
namespace {

// "VmHWM" or "VmRSS" of /proc/self/status, in bytes.
int64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

void forget_high_water_mark() { std::ofstream("/proc/self/clear_refs") << "5\n"; }

}  // namespace

TEST_CASE("Qwen2.5-0.5B trains on four ranks with ZeRO-3 within the forecast memory") {
  at::set_num_threads(1);
  const char* data = std::getenv("TPTRAIN_TEST_DATA");
  REQUIRE(data != nullptr);
  const std::string path = cat(data, "/models/Qwen2.5-0.5B/config.json");
  const model::DecoderConfig config =
      model::decoder_config_from_json(read_file(path, 1 << 20), path);
  constexpr int64_t kLength = 512;
  comm::DeviceMesh mesh(session(), {.dp_size = 2, .tp_size = 2}, comm::DeviceType::cpu);
  const planner::RankPlan plan = planner::plan_of_rank(
      config,
      {.tp_size = 2,
       .dp_size = 2,
       .zero_stage = 3,
       .seq_length = kLength,
       .training = {.sequence_parallel = tensor_parallel::SequenceParallel::on}},
      mesh.tp_rank());
  const int64_t forecast = plan.memory[3].total();

  at::mm(at::ones({64, 64}), at::ones({64, 64}));  // the GEMM library's own memory
  session().barrier();
  forget_high_water_mark();
  const int64_t baseline = status_bytes("VmRSS");
  kernels::cpu::CountingAllocator& counter = kernels::cpu::CountingAllocator::install();
  const int64_t live_before = counter.live_bytes();
  counter.restart_peak();
  train::Engine engine({.decoder = config,
                        .training = {.sequence_parallel = tensor_parallel::SequenceParallel::on},
                        .zero = {.zero_stage = 3, .reduce_per_micro_batch = true}},
                       mesh.tp(), mesh.dp(), at::kCPU);
  engine.state().initialise(42);
  data::HostBatch host{.batch = 1, .seq_length = kLength};
  for (int64_t i = 0; i < kLength; ++i) {
    host.ids.push_back((i * 7919 + mesh.dp_rank()) % config.vocab_size);
    host.targets.push_back((host.ids.back() + 1) % config.vocab_size);
  }
  std::vector<double> losses;
  for (int step = 0; step < 3; ++step) {
    const zero::StepNumbers numbers =
        engine.step({train::to_device(host, at::kCPU)}, 2 * kLength, 1e-4, 1.0);
    losses.push_back(numbers.losses[0].item<float>());
    CHECK(numbers.finite.item<bool>());
  }
  CHECK(losses[2] < losses[0]);

  const int64_t allocated = counter.peak_bytes() - live_before;
  const int64_t resident = status_bytes("VmHWM") - baseline;
  const std::string line =
      cat("rank ", session().rank(), ": forecast ", human_bytes(forecast), ", allocator's peak ",
          human_bytes(allocated), ", high-water mark above the baseline ", human_bytes(resident),
          ", losses ", fixed(losses[0], 4), " ", fixed(losses[1], 4), " ", fixed(losses[2], 4));
  for (const std::string& text : session().all_gather(line)) {
    if (session().rank() == 0) std::puts(text.c_str());
  }
  const auto forecast_bytes = static_cast<double>(forecast);
  CHECK(std::abs(static_cast<double>(allocated) - forecast_bytes) <= 0.1 * forecast_bytes);
  CHECK(std::abs(static_cast<double>(resident) - forecast_bytes) <= 0.1 * forecast_bytes);
}

}  // namespace tptrain::testing
