// Training steps on GPUs: tokens/s, model FLOP utilisation, peak memory, and where the device's
// time goes, of any model and layout, against its GEMMs and attention alone.
//   build/cuda/bin/bench_gpu_step --model DIR|config.json --seq-length 4096 --micro-batch-size 1
//   mpirun -n 2 build/cuda/bin/bench_gpu_step --model ... --tp 2 [--zero 1] [--layers N] [--dtype
//   bf16]
// Random weights and tokens; every step is a whole optimizer step with its host-to-device copies,
// no accumulation unless --accumulation says so. Times are those of the slowest rank. Steps and
// their GEMMs and attention alone take turns, so that both meet the same card, with its power and
// clocks read meanwhile; the products are those of the step: its algorithms, its types, weight
// gradients into fp32. The shares come from a few profiled steps (Kineto) after the timed ones,
// which the profiler does not slow. Memory is the most that the device's caching allocator reserved
// for the steps.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/text.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "device/device_facts.h"
#include "device/device_info.h"
#include "device/gpu_environment.h"
#include "device/power_meter.h"
#include "kernels/fp8.h"
#include "kernels/kernels.h"
#include "model/adapter.h"
#include "model/decoder_config.h"
#include "random/philox.h"
#include "train/engine.h"
#include "train/host_numbers.h"

namespace {

using namespace tptrain;
using Clock = std::chrono::steady_clock;

comm::PeerCopies peer_copies(const std::string& setting) {
  if (setting == "on") return comm::PeerCopies::on;
  return setting == "off" ? comm::PeerCopies::off : comm::PeerCopies::automatic;
}

struct Arguments {
  std::string model;
  int tp = 1;
  int zero_stage = 1;
  int64_t seq_length = 2048;
  int64_t micro_batch_size = 1;
  int64_t accumulation = 1;
  int64_t layers = 0;
  int64_t documents = 0;  // a sequence; 0: no mask
  std::string dtype = "bf16";
  std::string gradient_dtype = "fp32";
  std::string master_dtype = "fp32";
  std::string moments_dtype = "fp32";
  std::string fp8 = "off";
  std::string fp8_all_gather = "off";
  std::string optimizer = "adamw";
  std::string recompute = "none";
  std::string cuda_graphs = "auto";
  std::string tp_overlap = "auto";
  std::string dp_overlap = "auto";
  std::string trace;
  int64_t head_chunk = 0;
  int64_t adapter_rank = 0;
  int warmup = 5;
  int steps = 20;
  int rounds = 4;
  bool profile = true;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  CLI::App app("Training steps on GPUs: tokens/s, MFU, memory and where the time goes");
  app.add_option("--model", a.model, "config.json, or the directory that holds it")->required();
  app.add_option("--tp", a.tp, "tp size; dp is ranks / tp");
  app.add_option("--zero", a.zero_stage, "ZeRO stage");
  app.add_option("--seq-length", a.seq_length);
  app.add_option("--micro-batch-size", a.micro_batch_size, "Sequences per dp rank");
  app.add_option("--accumulation", a.accumulation, "Micro-batches a step");
  app.add_option("--layers", a.layers, "This many layers instead of the model's");
  app.add_option("--documents", a.documents,
                 "Every sequence holds this many documents of equal length that do not see each "
                 "other (data.document_mask)");
  app.add_option("--dtype", a.dtype)->check(CLI::IsMember({"bf16", "fp32"}));
  const CLI::IsMember types({"bf16", "fp32"});
  app.add_option("--gradient-dtype", a.gradient_dtype)->check(types);
  app.add_option("--master-dtype", a.master_dtype)->check(types);
  app.add_option("--moments-dtype", a.moments_dtype)->check(types);
  app.add_option("--fp8", a.fp8, "Linears of the layers in FP8; so are those of the limit")
      ->check(CLI::IsMember({"off", "on"}));
  app.add_option("--fp8-all-gather", a.fp8_all_gather,
                 "One scale for a tensor in parts, gathers of it in bytes")
      ->check(CLI::IsMember({"off", "on"}));
  app.add_option("--optimizer", a.optimizer, "Update rule")
      ->check(CLI::IsMember({"adamw", "lion", "muon"}));
  app.add_option("--recompute", a.recompute)->check(CLI::IsMember({"none", "selective", "full"}));
  app.add_option("--cuda-graphs", a.cuda_graphs)->check(CLI::IsMember({"auto", "on", "off"}));
  app.add_option("--tp-overlap", a.tp_overlap)->check(CLI::IsMember({"auto", "on", "off"}));
  app.add_option("--dp-overlap", a.dp_overlap)->check(CLI::IsMember({"auto", "on", "off"}));
  app.add_option("--trace", a.trace,
                 "Write the profiled steps here as a Chrome trace (rank 0; its folder is there)");
  app.add_option("--head-chunk", a.head_chunk,
                 "Tokens whose logits exist at a time; 0: as the program does");
  app.add_option("--adapter-rank", a.adapter_rank,
                 "Adapters of this rank on all linears beside a base that is frozen; the limit is "
                 "of the products that are left; 0: all parameters train");
  app.add_option("--warmup", a.warmup);
  app.add_option("--steps", a.steps);
  app.add_option("--rounds", a.rounds, "Steps and limit take turns so many times");
  app.add_flag("!--no-profile", a.profile, "Without the steps that are profiled at the end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e));
  }
  if (a.documents > a.seq_length) {
    std::fprintf(stderr, "--documents %ld is more than the %ld tokens of a sequence\n", a.documents,
                 a.seq_length);
    std::exit(2);
  }
  return a;
}

model::DecoderConfig config_of(const Arguments& arguments) {
  std::filesystem::path path = arguments.model;
  if (std::filesystem::is_directory(path)) path /= "config.json";
  model::DecoderConfig config =
      model::decoder_config_from_json(read_file(path, 1 << 20), path.string());
  if (arguments.layers > 0) config.num_hidden_layers = arguments.layers;
  return config;
}

/// A step as the trainer makes one: tokens from the host each time.
class Stepper {
 public:
  Stepper(train::Engine& engine, const Arguments& arguments, int64_t vocab_size, int dp_rank,
          int dp_size)
      : engine_(engine),
        host_{.batch = arguments.micro_batch_size,
              .seq_length = arguments.seq_length,
              .ids = {},
              .targets = {}},
        accumulation_(arguments.accumulation),
        target_tokens_(arguments.micro_batch_size * arguments.seq_length * arguments.accumulation *
                       dp_size) {
    const auto key = random::philox_key(static_cast<uint64_t>(dp_rank), "benchmark batch");
    const auto vocabulary = static_cast<uint64_t>(vocab_size);
    for (int64_t i = 0; i < arguments.micro_batch_size * arguments.seq_length; ++i) {
      host_.ids.push_back(
          static_cast<int64_t>(random::philox_below(key, static_cast<uint64_t>(i), vocabulary)));
      host_.targets.push_back((host_.ids.back() * 7 + 1) % vocab_size);
    }
    for (int64_t i = 1; i <= arguments.micro_batch_size * arguments.documents; ++i)
      host_.document_ends.push_back(i * arguments.seq_length / arguments.documents);
  }

  int64_t tokens() const { return target_tokens_; }

  /// Hands a step to the device and, as the trainer does, reads the loss of the step before.
  void operator()() {
    std::vector<train::MicroBatch> micro;
    for (int64_t i = 0; i < accumulation_; ++i)
      micro.push_back(train::to_device(host_, engine_.device()));
    zero::StepNumbers numbers = engine_.step(micro, target_tokens_, 1e-4, 1.0);
    std::optional<train::HostNumbers> before = std::exchange(before_, train::HostNumbers(numbers));
    if (before && !before->finite()) throw std::runtime_error("a step was not finite");
  }
  double last_loss() { return before_->loss(); }

 private:
  train::Engine& engine_;
  data::HostBatch host_;
  int64_t accumulation_;
  int64_t target_tokens_;
  std::optional<train::HostNumbers> before_;
};

std::optional<config::AdapterConfig> adapter_of(const Arguments& arguments) {
  if (arguments.adapter_rank == 0) return std::nullopt;
  return config::AdapterConfig{.rank = arguments.adapter_rank};
}

/// The GEMMs of forward, input and weight gradient (with adapters of no weight: theirs are left
/// out), and attention, of one rank's share of a micro-batch: nothing else. They are multiplied as
/// the step multiplies them.
class Limit {
 public:
  Limit(const model::DecoderConfig& config, const Arguments& arguments, at::TensorOptions options)
      : layers_(config.num_hidden_layers), frozen_(arguments.adapter_rank > 0), options_(options) {
    const int64_t tokens = arguments.seq_length * arguments.micro_batch_size;
    const int64_t heads = config.num_attention_heads / arguments.tp;
    const int64_t kv_heads = std::max<int64_t>(1, config.num_key_value_heads / arguments.tp);
    const int64_t q = heads * config.head_dim;
    const int64_t width = q + 2 * kv_heads * config.head_dim;
    const int64_t ffn = config.intermediate_size / arguments.tp;
    const bool gated = config.feed_forward == model::FeedForward::swiglu;
    attention_ = {.heads = heads, .kv_heads = kv_heads, .head_dim = config.head_dim};
    qkv_ = at::randn({arguments.seq_length, arguments.micro_batch_size, width}, options);
    context_gradient_ = at::randn({arguments.seq_length, arguments.micro_batch_size, q}, options);
    const bool fp8 = arguments.fp8 == "on";
    add(tokens, config.hidden_size, width, fp8);
    add(tokens, q, config.hidden_size, fp8);
    add(tokens, config.hidden_size, gated ? 2 * ffn : ffn, fp8);
    add(tokens, ffn, config.hidden_size, fp8);
    // With the table's rows of padding, as the model has them.
    const int64_t vocab = (config.vocab_size / arguments.tp + 63) / 64 * 64;
    head_ = gemm(tokens, config.hidden_size, vocab);
  }

  /// Of the first of a step's micro-batches, or of one that adds to its weight gradients.
  void operator()(kernels::Accumulate accumulate) {
    for (int64_t layer = 0; layer < layers_; ++layer) {
      for (Gemm& g : gemms_) run(g, accumulate);
      for (Fp8Gemm& g : fp8_gemms_) run(g, accumulate);
      const kernels::AttentionResult forward = kernels::causal_attention(qkv_, attention_);
      kernels::causal_attention_backward(context_gradient_, qkv_, forward, attention_);
    }
    run(head_, accumulate);
  }

 private:
  struct Gemm {
    at::Tensor x, weight, y, grad_x, grad_weight;
  };
  struct Fp8Gemm {
    Gemm outputs;
    kernels::Fp8Matrix x, weight, grad_y;
  };
  Gemm gemm(int64_t tokens, int64_t in, int64_t out) const {
    return {at::randn({tokens, in}, options_), at::randn({out, in}, options_),
            at::randn({tokens, out}, options_), at::empty({tokens, in}, options_),
            at::zeros({frozen_ ? 0 : out, in}, options_.dtype(at::kFloat))};
  }
  void add(int64_t tokens, int64_t in, int64_t out, bool fp8) {
    Gemm made = gemm(tokens, in, out);
    if (!fp8) {
      gemms_.push_back(std::move(made));
      return;
    }
    const auto cast = [](at::Tensor& matrix, kernels::Fp8 type) {
      kernels::Fp8Matrix result = kernels::to_fp8(matrix, type, kernels::Fp8Form::both);
      return result;
    };
    kernels::Fp8Matrix x = cast(made.x, kernels::Fp8::e4m3);
    kernels::Fp8Matrix weight = cast(made.weight, kernels::Fp8::e4m3);
    kernels::Fp8Matrix grad_y = cast(made.y, kernels::Fp8::e5m2);
    made.x.reset();
    made.weight.reset();
    fp8_gemms_.push_back({std::move(made), std::move(x), std::move(weight), std::move(grad_y)});
  }
  void run(Gemm& g, kernels::Accumulate accumulate) const {
    kernels::product_out(g.y, g.x, g.weight.t());
    kernels::product_out(g.grad_x, g.y, g.weight);
    if (frozen_) return;
    kernels::accumulate_weight_gradient(g.grad_weight, g.y, g.x, accumulate);
  }
  static void run(Fp8Gemm& g, kernels::Accumulate accumulate) {
    using kernels::Fp8Sums;
    kernels::fp8_product_out(g.outputs.y, {g.x.rows, g.x.scale}, {g.weight.rows, g.weight.scale},
                             Fp8Sums::fast);
    kernels::fp8_product_out(g.outputs.grad_x, {g.grad_y.rows, g.grad_y.scale},
                             {g.weight.columns, g.weight.scale}, Fp8Sums::split);
    kernels::fp8_product_out(g.outputs.grad_weight, {g.grad_y.columns, g.grad_y.scale},
                             {g.x.columns, g.x.scale}, Fp8Sums::split, {}, accumulate);
  }

  int64_t layers_;
  bool frozen_;
  at::TensorOptions options_;
  std::vector<Gemm> gemms_;
  std::vector<Fp8Gemm> fp8_gemms_;
  Gemm head_;
  kernels::AttentionShape attention_;
  at::Tensor qkv_, context_gradient_;
};

/// Calls one after the other, timed with what the card did meanwhile.
struct Timed {
  double seconds = 0;  // of the slowest rank
  int calls = 0;
  device::PowerReading power;  // of this rank's GPU

  double seconds_each() const { return seconds / calls; }
};
template <typename Work>
void time(comm::MpiSession& session, at::Device device, int count, Work&& work, Timed& to) {
  at::cuda::getCurrentCUDAStream().synchronize();
  session.barrier();
  device::PowerMeter meter(device);
  const auto begin = Clock::now();
  for (int i = 0; i < count; ++i) work();
  at::cuda::getCurrentCUDAStream().synchronize();
  const double own = std::chrono::duration<double>(Clock::now() - begin).count();
  to.power = joined(to.power, meter.stop());
  to.seconds += static_cast<double>(session.max(static_cast<int64_t>(own * 1e9))) * 1e-9;
  to.calls += count;
}

enum Kind { gemm, attention, communication, optimizer, elementwise, kKinds };

Kind kind_of(const std::string& kernel) {
  const auto holds = [&](std::initializer_list<const char*> parts) {
    return std::any_of(parts.begin(), parts.end(),
                       [&](const char* part) { return kernel.find(part) != std::string::npos; });
  };
  if (holds({"ncclDevKernel", "ncclKernel", "Memcpy PtoP", "tptrain::comm::"}))
    return communication;
  if (holds({"optim::cuda"})) return optimizer;
  if (holds({"flash", "fmha", "sdpa", "cudnn_generated_fort_native_sdpa"})) return attention;
  if (holds(
          {"gemm", "cutlass", "xmma", "nvjet", "cublas", "splitKreduce", "hopper::product_kernel"}))
    return gemm;
  return elementwise;
}

struct Shares {
  double busy = 0;  // any kernel runs
  double kinds[kKinds] = {};
  double hidden_communication = 0;  // under another kernel
  int64_t kernels = 0;
  std::vector<std::pair<double, std::string>> largest;   // of elementwise, by seconds
  std::vector<std::pair<double, std::string>> products;  // likewise
};

double covered(std::vector<std::pair<int64_t, int64_t>> spans) {
  std::sort(spans.begin(), spans.end());
  int64_t total = 0;
  int64_t end = std::numeric_limits<int64_t>::min();
  for (const auto& [first, last] : spans) {
    total += std::max<int64_t>(0, last - std::max(first, end));
    end = std::max(end, last);
  }
  return static_cast<double>(total) * 1e-9;
}

/// `trace`: a file for the events, or empty.
template <typename Work>
Shares profiled(int steps, const std::string& trace, Work&& work) {
  namespace profiler = torch::autograd::profiler;
  const std::set<torch::profiler::impl::ActivityType> activities = {
      torch::profiler::impl::ActivityType::CUDA};
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  for (int i = 0; i < steps; ++i) work();
  at::cuda::getCurrentCUDAStream().synchronize();
  const auto result = profiler::disableProfiler();
  if (!trace.empty()) result->save(trace);

  Shares shares;
  std::vector<std::pair<int64_t, int64_t>> all, compute;
  struct Calls {
    double seconds = 0;
    int64_t count = 0;
  };
  std::map<std::string, double> by_name;
  // One kernel multiplies several shapes: those that take about as long are one line.
  std::map<std::pair<std::string, int>, Calls> by_length;
  for (const auto& event : result->events()) {
    if (event.deviceType() != c10::DeviceType::CUDA) continue;
    const auto begin = static_cast<int64_t>(event.startNs());
    const auto end = begin + static_cast<int64_t>(event.durationNs());
    const Kind kind = kind_of(event.name());
    ++shares.kernels;
    shares.kinds[kind] += static_cast<double>(event.durationNs()) * 1e-9;
    all.emplace_back(begin, end);
    if (kind != communication) compute.emplace_back(begin, end);
    if (kind == elementwise)
      by_name[event.name()] += static_cast<double>(event.durationNs()) * 1e-9;
    if (kind == gemm) {
      const auto ns = static_cast<double>(std::max<uint64_t>(1, event.durationNs()));
      Calls& calls = by_length[{event.name(), static_cast<int>(4 * std::log2(ns))}];
      calls.seconds += ns * 1e-9;
      ++calls.count;
    }
  }
  shares.busy = covered(all);
  shares.hidden_communication = covered(compute) + shares.kinds[communication] - shares.busy;
  for (const auto& [name, seconds] : by_name) shares.largest.emplace_back(seconds, name);
  std::sort(shares.largest.rbegin(), shares.largest.rend());
  for (const auto& [key, calls] : by_length) {
    const double each_us = calls.seconds * 1e6 / static_cast<double>(calls.count);
    shares.products.emplace_back(calls.seconds / steps, cat(calls.count / steps, " of ",
                                                            fixed(each_us, 0), " us: ", key.first));
  }
  std::sort(shares.products.rbegin(), shares.products.rend());
  for (double& seconds : shares.kinds) seconds /= steps;
  for (auto& [seconds, name] : shares.largest) seconds /= steps;
  shares.busy /= steps;
  shares.hidden_communication /= steps;
  shares.kernels /= steps;
  return shares;
}

void print_shares(const Shares& shares, double seconds) {
  const auto share = [&](double part) { return 100 * part / seconds; };
  std::printf(
      "  of the step's time: GEMM %.1f %%, attention %.1f %%, elementwise %.1f %%, optimizer %.1f "
      "%%,"
      " communication %.1f %% (hidden %.1f %%), idle or waiting %.1f %%; %ld kernels\n",
      share(shares.kinds[gemm]), share(shares.kinds[attention]), share(shares.kinds[elementwise]),
      share(shares.kinds[optimizer]), share(shares.kinds[communication]),
      share(shares.hidden_communication), share(seconds - shares.busy), shares.kernels);
  for (size_t i = 0; i < std::min<size_t>(14, shares.largest.size()); ++i)
    std::printf("    %6.2f %%  %.110s\n", share(shares.largest[i].first),
                shares.largest[i].second.c_str());
  for (size_t i = 0; i < std::min<size_t>(24, shares.products.size()); ++i)
    std::printf("    %6.2f %%  %.110s\n", share(shares.products[i].first),
                shares.products[i].second.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  device::ask_for_queues();
  const Arguments arguments = parse(argc, argv);
  comm::MpiSession session(&argc, &argv);
  if (session.size() % arguments.tp != 0) {
    if (session.rank() == 0)
      std::fprintf(stderr, "--tp %d does not divide the %d ranks\n", arguments.tp, session.size());
    return 2;
  }
  const comm::MeshShape shape = {.dp_size = session.size() / arguments.tp, .tp_size = arguments.tp};
  comm::DeviceMesh mesh(session, shape, comm::DeviceType::cuda, {},
                        comm::AxisCopies{.tp = peer_copies(arguments.tp_overlap),
                                         .dp = peer_copies(arguments.dp_overlap)});
  const model::DecoderConfig config = config_of(arguments);
  const at::ScalarType dtype = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;

  config::OptimizerConfig optimizer;
  optimizer.type = config::meaning<config::OptimizerType>(arguments.optimizer).value();
  if (arguments.master_dtype == "bf16") optimizer.master_dtype = config::Dtype::bf16;
  if (arguments.moments_dtype == "bf16") optimizer.moments_dtype = config::Dtype::bf16;
  at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  train::Engine engine(
      {.decoder = config,
       .training = {.sequence_parallel = tensor_parallel::SequenceParallel::on,
                    .recompute = arguments.recompute == "full"        ? model::Recompute::full
                                 : arguments.recompute == "selective" ? model::Recompute::selective
                                                                      : model::Recompute::none,
                    .fp8 = {.on = arguments.fp8 == "on",
                            .all_gather = arguments.fp8_all_gather == "on"},
                    .head_chunk_tokens = arguments.head_chunk,
                    .adapter = adapter_of(arguments)},
       .zero = {.zero_stage = arguments.zero_stage, .optimizer = optimizer},
       .dtype = dtype,
       .gradient_dtype = arguments.gradient_dtype == "bf16" ? at::kBFloat16 : at::kFloat,
       .cuda_graphs = arguments.cuda_graphs == "off"  ? train::CudaGraphs::off
                      : arguments.cuda_graphs == "on" ? train::CudaGraphs::on
                                                      : train::CudaGraphs::automatic},
      mesh.tp(), mesh.dp(), mesh.device());
  const auto begin = Clock::now();
  engine.state().initialise(1);
  at::cuda::getCurrentCUDAStream().synchronize();
  const double initialise_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  Stepper step(engine, arguments, config.vocab_size, mesh.dp_rank(), shape.dp_size);
  while (engine.how_steps_run().empty()) step();  // it measures which way they are faster
  for (int i = 0; i < arguments.warmup; ++i) step();
  at::cuda::getCurrentCUDAStream().synchronize();
  const int64_t peak_bytes = device::memory_use(mesh.device()).peak_bytes;
  Timed steps, alone;
  {
    Limit limit(config, arguments, at::TensorOptions().dtype(dtype).device(mesh.device()));
    const auto once = [&] {
      for (int64_t i = 0; i < arguments.accumulation; ++i)
        limit(i == 0 ? kernels::Accumulate::overwrite : kernels::Accumulate::add);
    };
    once();
    for (int round = 0; round < arguments.rounds; ++round) {
      const int count = (arguments.steps * (round + 1)) / arguments.rounds -
                        (arguments.steps * round) / arguments.rounds;
      time(session, mesh.device(), count, step, steps);
      time(session, mesh.device(), std::max(1, count / 2), once, alone);
    }
  }
  c10::cuda::CUDACachingAllocator::emptyCache();
  const double seconds = steps.seconds_each();
  const double limit_seconds = alone.seconds_each();
  Shares shares;
  if (arguments.profile) shares = profiled(3, session.rank() == 0 ? arguments.trace : "", step);
  const double loss = step.last_loss();
  if (session.rank() != 0) return 0;

  const std::string device = device::device_name(mesh.device());
  const double ranks = session.size();
  const double tokens_per_gpu = static_cast<double>(step.tokens()) / seconds / ranks;
  const auto adapter = adapter_of(arguments);
  const double causal = adapter ? model::flops_per_token(config, *adapter, arguments.seq_length)
                                : model::flops_per_token(config, arguments.seq_length);
  const double whole =
      causal + 6.0 * static_cast<double>(config.num_hidden_layers * config.num_attention_heads *
                                         config.head_dim * arguments.seq_length);
  const double peak = device::peak_flops(device, dtype).value_or(0);
  std::printf(
      "%s, %d layers, %s; tp %d x dp %d on %s, ZeRO-%d, %s%s, recompute %s, sequence %ld x %ld x "
      "%ld\n",
      config.model_type.c_str(), static_cast<int>(config.num_hidden_layers),
      with_thousands(model::parameter_count(config)).c_str(), shape.tp_size, shape.dp_size,
      device.c_str(), arguments.zero_stage, arguments.dtype.c_str(),
      arguments.fp8 == "off"              ? ""
      : arguments.fp8_all_gather == "off" ? " with FP8"
                                          : " with FP8, gathered as such",
      arguments.recompute.c_str(), arguments.seq_length, arguments.micro_batch_size,
      arguments.accumulation);
  if (adapter)
    std::printf("  adapters of rank %ld on %s: %s parameters train\n", adapter->rank,
                join(adapter->targets).c_str(),
                with_thousands(model::adapter_parameters(config, *adapter)).c_str());
  if (arguments.documents > 0)
    std::printf("  %ld documents a sequence, with a mask; limit and MFU are of whole sequences\n",
                arguments.documents);
  std::printf("  step                      %9.2f ms   %10s tokens/s/GPU   loss %.4f\n",
              seconds * 1e3, with_thousands(static_cast<int64_t>(tokens_per_gpu)).c_str(), loss);
  const double limit_tokens =
      static_cast<double>(step.tokens()) / limit_seconds / shape.dp_size / shape.tp_size;
  std::printf("  GEMM and attention alone  %9.2f ms   %10s tokens/s/GPU   step reaches %.1f %%\n",
              limit_seconds * 1e3, with_thousands(static_cast<int64_t>(limit_tokens)).c_str(),
              100 * limit_seconds / seconds);
  if (peak > 0) {
    std::printf(
        "  MFU (of %.0f TFLOP/s)      %8.1f %% with the causal half, %.1f %% with all of "
        "attention\n",
        peak * 1e-12, 100 * causal * tokens_per_gpu / peak, 100 * whole * tokens_per_gpu / peak);
  }
  std::printf("  peak memory               %9s\n", human_bytes(peak_bytes).c_str());
  std::printf("  the card in the steps     %s\n", text_of(steps.power).c_str());
  std::printf("  the card in the limit     %s\n", text_of(alone.power).c_str());
  if (arguments.fp8 == "on" && !engine.decoder().linears_left_in_bf16().empty())
    std::printf("  not in FP8: %s\n", join(engine.decoder().linears_left_in_bf16()).c_str());
  if (arguments.profile) print_shares(shares, seconds);
  std::printf("  random values made in %.1f s; %s; %s\n", initialise_seconds,
              mesh.transport().c_str(), engine.how_steps_run().c_str());
  return 0;
}
