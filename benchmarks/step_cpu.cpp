// One optimizer step on CPU ranks against what its GEMMs and attention alone allow on the same
// cores, measured in turn in the same run.
//   mpirun -n 2 --oversubscribe --bind-to none build/cpu/bin/bench_step_cpu --tp 1 --dp 2
// Shape: Llama, hidden 256, 4 layers, 8 heads on 4 kv heads, ffn 688, vocabulary 512, sequence 256,
// micro-batch 8, fp32, AdamW, clip 1.0, no accumulation. Prints medians over the rounds; compare
// ratios, not absolute times, between machines.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "kernels/cpu/allocation.h"
#include "kernels/kernels.h"
#include "random/philox.h"
#include "train/engine.h"

namespace {

using namespace tptrain;

struct Arguments {
  int tp = 1;
  int dp = 1;
  int rounds = 15;
  int zero_stage = 1;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const int value = std::atoi(argv[i + 1]);
    if (name == "--tp")
      arguments.tp = value;
    else if (name == "--dp")
      arguments.dp = value;
    else if (name == "--rounds")
      arguments.rounds = value;
    else if (name == "--zero")
      arguments.zero_stage = value;
    else {
      std::fprintf(stderr, "unknown argument %s; known: --tp --dp --rounds --zero\n", argv[i]);
      std::exit(2);
    }
  }
  return arguments;
}

model::DecoderConfig shape() {
  model::DecoderConfig config;
  config.vocab_size = 512;
  config.hidden_size = 256;
  config.intermediate_size = 688;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 32;
  return config;
}

constexpr int64_t kSequence = 256;
constexpr int64_t kBatch = 8;

/// The GEMMs of forward, input gradient and weight gradient, and the attention, of one rank's
/// share: nothing else.
class Limit {
 public:
  Limit(const model::DecoderConfig& config, int tp) : layers_(config.num_hidden_layers) {
    const int64_t tokens = kSequence * kBatch;
    const int64_t q = config.num_attention_heads / tp * config.head_dim;
    const int64_t kv = config.num_key_value_heads / tp * config.head_dim;
    attention_ = {.heads = config.num_attention_heads / tp,
                  .kv_heads = config.num_key_value_heads / tp,
                  .head_dim = config.head_dim};
    qkv_ = at::randn({kSequence, kBatch, q + 2 * kv});
    context_gradient_ = at::randn({kSequence, kBatch, q});
    add(tokens, config.hidden_size, q + 2 * kv);
    add(tokens, q, config.hidden_size);
    add(tokens, config.hidden_size, 2 * config.intermediate_size / tp);
    add(tokens, config.intermediate_size / tp, config.hidden_size);
    head_ = gemm(tokens, config.hidden_size, config.vocab_size / tp);
  }

  void run() {
    for (int64_t layer = 0; layer < layers_; ++layer) {
      for (Gemm& g : gemms_) run(g);
      const kernels::AttentionResult forward = kernels::causal_attention(qkv_, attention_);
      kernels::causal_attention_backward(context_gradient_, qkv_, forward, attention_);
    }
    run(head_);
  }

 private:
  struct Gemm {
    at::Tensor x, weight, y, grad_x, grad_weight;
  };
  static Gemm gemm(int64_t tokens, int64_t in, int64_t out) {
    return {at::randn({tokens, in}), at::randn({out, in}), at::empty({tokens, out}),
            at::empty({tokens, in}), at::zeros({out, in})};
  }
  void add(int64_t tokens, int64_t in, int64_t out) { gemms_.push_back(gemm(tokens, in, out)); }
  static void run(Gemm& g) {
    at::mm_out(g.y, g.x, g.weight.t());
    at::mm_out(g.grad_x, g.y, g.weight);
    at::mm_out(g.grad_weight, g.y.t(), g.x);
  }

  int64_t layers_;
  std::vector<Gemm> gemms_;
  Gemm head_;
  kernels::AttentionShape attention_;
  at::Tensor qkv_, context_gradient_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double timed(comm::MpiSession& session, const std::function<void()>& work) {
  session.barrier();
  const auto begin = std::chrono::steady_clock::now();
  work();
  session.barrier();  // the slowest rank counts
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char** argv) {
  comm::MpiSession session(&argc, &argv);
  const Arguments arguments = parse(argc, argv);
  if (arguments.tp * arguments.dp != session.size()) {
    if (session.rank() == 0)
      std::fprintf(stderr, "--tp %d x --dp %d is not the number of ranks, %d\n", arguments.tp,
                   arguments.dp, session.size());
    return 2;
  }
  at::set_num_threads(1);
  kernels::cpu::retain_freed_memory();  // as a training run does
  comm::DeviceMesh mesh(session, {.dp_size = arguments.dp, .tp_size = arguments.tp},
                        comm::DeviceType::cpu);
  const model::DecoderConfig config = shape();
  train::Engine engine(
      {.decoder = config, .zero = {.zero_stage = arguments.zero_stage, .optimizer = {}}}, mesh.tp(),
      mesh.dp(), at::kCPU);
  engine.state().initialise(1);

  data::HostBatch host{.batch = kBatch, .seq_length = kSequence, .ids = {}, .targets = {}};
  const auto key = random::philox_key(static_cast<uint64_t>(mesh.dp_rank()), "benchmark batch");
  for (int64_t i = 0; i < kBatch * kSequence; ++i) {
    host.ids.push_back(
        static_cast<int64_t>(random::philox_below(key, static_cast<uint64_t>(i), 512)));
    host.targets.push_back((host.ids.back() * 7 + 1) % 512);
  }
  const std::vector<train::MicroBatch> micro = {train::to_device(host, at::kCPU)};
  const int64_t tokens = kBatch * kSequence * arguments.dp;

  const auto step = [&] { engine.step(micro, tokens, 1e-3, 1.0).norm.item<float>(); };
  Limit limit(config, arguments.tp);
  const auto bound = [&] {
    const at::NoGradGuard no_grad;
    limit.run();
  };
  for (int i = 0; i < 3; ++i) {
    timed(session, step);
    timed(session, bound);
  }
  std::vector<double> steps, bounds, ratios;
  for (int i = 0; i < arguments.rounds; ++i) {
    steps.push_back(timed(session, step));
    bounds.push_back(timed(session, bound));
    ratios.push_back(bounds.back() / steps.back());
  }
  if (session.rank() == 0) {
    std::printf("tp %d x dp %d, ZeRO-%d, %d rounds (medians; transport of tp: %s)\n", arguments.tp,
                arguments.dp, arguments.zero_stage, arguments.rounds, mesh.transport().c_str());
    std::printf("  step:                     %8.1f ms  %8.0f tokens/s\n", median(steps) * 1e3,
                tokens / median(steps));
    std::printf("  GEMM and attention alone: %8.1f ms  %8.0f tokens/s\n", median(bounds) * 1e3,
                tokens / median(bounds));
    std::printf("  ratio, paired:            %8.1f %%\n", 100 * median(ratios));
  }
  return 0;
}
