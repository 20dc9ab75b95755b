// What a ZeRO stage, sequence parallelism or recompute costs in step time: the same step of the
// same model by one engine each, in turn, in one run. Not how fast a step is: that is
// step_cpu.cpp's.
//   mpirun -n 4 bench_layout_cost --tp 2 --dp 2 [--rounds 15] [--micro-batches 2]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "kernels/cpu/allocation.h"
#include "train/engine.h"

namespace {

using namespace tptrain;  // NOLINT: a program, not a header
using tensor_parallel::SequenceParallel;

constexpr int64_t kSequence = 256;
constexpr int64_t kBatch = 4;  // sequences of a micro-batch

model::DecoderConfig shape() {
  return {.model_type = "llama",
          .vocab_size = 512,
          .hidden_size = 256,
          .intermediate_size = 688,
          .num_hidden_layers = 4,
          .num_attention_heads = 8,
          .num_key_value_heads = 4,
          .head_dim = 32};
}

struct Variant {
  std::string name;
  int zero_stage = 1;
  bool per_micro_batch = false;
  SequenceParallel sequence_parallel = SequenceParallel::on;
  model::Recompute recompute = model::Recompute::none;
};

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all = {
      {.name = "ZeRO 1"},
      {.name = "ZeRO 0", .zero_stage = 0},
      {.name = "ZeRO 1, reduced per micro-batch", .per_micro_batch = true},
      {.name = "ZeRO 2", .zero_stage = 2},
      {.name = "ZeRO 3", .zero_stage = 3},
      {.name = "ZeRO 1, sequence parallel off", .sequence_parallel = SequenceParallel::off},
      {.name = "ZeRO 1, selective recompute", .recompute = model::Recompute::selective},
      {.name = "ZeRO 1, full recompute", .recompute = model::Recompute::full},
  };
  return all;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  int tp = 2, dp = 2, rounds = 15, micro_batches = 2;
  CLI::App app("step time by layout");
  app.add_option("--tp", tp);
  app.add_option("--dp", dp);
  app.add_option("--rounds", rounds);
  app.add_option("--micro-batches", micro_batches);
  CLI11_PARSE(app, argc, argv);

  comm::MpiSession session(&argc, &argv);
  at::set_num_threads(1);
  kernels::cpu::retain_freed_memory();
  comm::DeviceMesh mesh(session, {.dp_size = dp, .tp_size = tp}, comm::DeviceType::cpu);
  std::vector<std::unique_ptr<train::Engine>> engines;
  for (const Variant& variant : variants()) {
    engines.push_back(std::make_unique<train::Engine>(
        train::Engine::Options{
            .decoder = shape(),
            .training = {.sequence_parallel = variant.sequence_parallel,
                         .recompute = variant.recompute},
            .zero = {.zero_stage = variant.zero_stage,
                     .reduce_per_micro_batch = variant.per_micro_batch || variant.zero_stage >= 2}},
        mesh.tp(), mesh.dp(), at::kCPU));
    engines.back()->state().initialise(1);
  }
  data::HostBatch host{.batch = kBatch, .seq_length = kSequence, .ids = {}, .targets = {}};
  for (int64_t i = 0; i < kBatch * kSequence; ++i) {
    host.ids.push_back((i * 31 + mesh.dp_rank()) % 512);
    host.targets.push_back((host.ids.back() * 7 + 1) % 512);
  }
  const std::vector<train::MicroBatch> batch(static_cast<size_t>(micro_batches),
                                             train::to_device(host, at::kCPU));
  const int64_t tokens = kBatch * kSequence * dp * micro_batches;

  std::vector<std::vector<double>> times(engines.size());
  for (int round = -2; round < rounds; ++round) {  // the first two warm up
    for (size_t i = 0; i < engines.size(); ++i) {
      session.barrier();
      const auto begin = std::chrono::steady_clock::now();
      engines[i]->step(batch, tokens, 1e-3, 1.0);
      session.barrier();  // the slowest rank counts
      if (round >= 0)
        times[i].push_back(
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  if (session.rank() != 0) return 0;
  std::printf("tp %d x dp %d, %d micro-batches of %ld x %ld tokens a dp rank, %d rounds, medians\n",
              tp, dp, micro_batches, kBatch, kSequence, rounds);
  for (size_t i = 0; i < engines.size(); ++i) {
    std::vector<double> ratios;
    for (size_t r = 0; r < times[i].size(); ++r) ratios.push_back(times[i][r] / times[0][r]);
    std::printf("  %-34s %8.1f ms   %.3f of ZeRO 1, paired\n", variants()[i].name.c_str(),
                median(times[i]) * 1e3, median(ratios));
  }
  return 0;
}
