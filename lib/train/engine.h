// Engine: decoder + buckets + ZeRO as one machine that makes optimizer steps from micro-batches. No
// data, no files, no logging.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder.h"
#include "tensor_parallel/fp8_counters.h"
#include "tensor_parallel/nf4_base.h"
#include "train/graph_trial.h"
#include "train/micro_batch.h"
#include "train/step_graph.h"
#include "zero/param_buckets.h"
#include "zero/zero_optimizer.h"

namespace tptrain::train {

/// Whether a whole optimizer step is captured as a CUDA graph and replayed, where that is possible,
/// or issued call by call. automatic: whichever is measured to be faster.
using config::CudaGraphs;

class Engine {
 public:
  struct Options {
    model::DecoderConfig decoder;
    model::TrainingOptions training = {};
    zero::ZeroOptimizer::Options zero;
    at::ScalarType dtype = at::kFloat;  // of weights and activations: fp32 or bf16
    /// Of the layers' matrices: bf16 where each step has one micro-batch, or reduces each.
    at::ScalarType gradient_dtype = at::kFloat;
    CudaGraphs cuda_graphs = CudaGraphs::automatic;
    StepClock* clock = nullptr;  // gets the time of a step's phases
  };
  /// Allocates this rank's share on `device`. `tp` and `dp` must outlive it. Values come with
  /// state().initialise() or a load.
  Engine(const Options& options, comm::Communicator& tp, comm::Communicator& dp, at::Device device);

  /// One optimizer step. micro_batches: this dp rank's; target_tokens: counted targets of the whole
  /// global batch, > 0. `losses` of the result are fp32 [2]: the mean over the target tokens of the
  /// global batch of cross entropy and of logsumexp(logits)^2, the same on every rank. Where steps
  /// are captured, all ranks' micro-batches have room for as many documents: ranks capture and
  /// replay together, since the collectives of a graph are set up by all. Collective over the mesh.
  zero::StepNumbers step(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens,
                         double learning_rate, double max_grad_norm);
  /// Mean cross entropy without gradients (fp32 scalar); arguments as in step. Collective over the
  /// mesh.
  at::Tensor evaluate(const std::vector<MicroBatch>& micro_batches, int64_t target_tokens);

  /// Throws CommError where a collective of an earlier step has failed on the device.
  void throw_if_communication_failed();

  model::Decoder& decoder() { return decoder_; }
  /// Fills what of the base is packed: nothing where adapter.base_dtype packs nothing. Throws what
  /// the source throws, on the rank that meets it alone.
  void load_packed(const sharding::TensorSource& source);
  zero::ParamBuckets& buckets() { return buckets_; }
  zero::ZeroOptimizer& zero() { return zero_; }
  zero::ShardedState& state() { return zero_.state(); }
  at::Device device() const { return device_; }
  /// Null where they were not asked for.
  const tensor_parallel::Fp8Counters* fp8_counters() const {
    return fp8_counters_ ? &*fp8_counters_ : nullptr;
  }

  /// "replayed from a CUDA graph" (the first step, which sets the libraries up, and the first after
  /// a change of sizes apart) or "issued call by call", and why; empty while that is being
  /// measured.
  const std::string& how_steps_run() const { return how_steps_run_; }

 private:
  /// The step as a graph: what it reads, in memory that stays, and what it wrote last.
  struct Captured {
    std::vector<MicroBatch> micro_batches;
    double max_grad_norm = 0;
    zero::StepNumbers numbers;
    std::unique_ptr<StepGraph> graph;  // null: the next step of these sizes is captured
  };
  zero::StepNumbers run_step(const std::vector<MicroBatch>& micro_batches, double max_grad_norm);
  zero::StepNumbers replay_step(const std::vector<MicroBatch>& micro_batches, double max_grad_norm);
  void decide_trial();
  void drop_captured();
  bool fits(const std::vector<MicroBatch>& micro_batches, double max_grad_norm) const;
  Captured make_room(const std::vector<MicroBatch>& micro_batches, double max_grad_norm);

  at::Device device_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  StepClock* clock_;
  bool replays_;  // steps that can be
  std::string how_steps_run_;
  std::optional<GraphTrial> trial_;
  at::Tensor inverse_targets_;  // fp32 scalar: 1 / target tokens of the step's global batch
  int64_t most_ends_ = 0;       // entries of documents' ends that a captured step has room for
  std::optional<tensor_parallel::Fp8Counters> fp8_counters_;
  model::Decoder decoder_;
  std::optional<tensor_parallel::Nf4Base> packed_;
  zero::ParamBuckets buckets_;
  zero::ZeroOptimizer zero_;
  std::optional<Captured> captured_;  // goes first: a graph holds addresses of all the others
};

}  // namespace tptrain::train
