// The keys of train: batch and length, then seed, device and numbers.
#include "config/key_binding.h"

namespace tptrain::config {

namespace {

constexpr Limits kShareOfDropped = {.at_least = 0, .below = 1};

std::vector<Key> batch_keys() {
  return {
      bind({.path = "train.seq_length",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Tokens of a sequence."},
           &RunConfig::train, &TrainConfig::seq_length),
      bind({.path = "train.micro_batch_size",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Sequences that a dp rank takes through the model at once."},
           &RunConfig::train, &TrainConfig::micro_batch_size),
      bind({.path = "train.global_batch_size",
            .type = Type::integer,
            .presence = Presence::absent,
            .limits = kPositive,
            .doc = "Sequences of one optimizer step over all ranks: a multiple of "
                   "micro_batch_size * dp_size.",
            .hint = "micro_batch_size * dp_size * grad_accum_steps"},
           &RunConfig::train, &TrainConfig::global_batch_size),
      bind({.path = "train.grad_accum_steps",
            .type = Type::integer,
            .presence = Presence::absent,
            .limits = kPositive,
            .doc = "Micro-batches of one optimizer step on each dp rank.",
            .hint = "1, or what global_batch_size asks for"},
           &RunConfig::train, &TrainConfig::grad_accum_steps),
      bind({.path = "train.max_steps",
            .type = Type::integer,
            .presence = Presence::absent,
            .limits = kPositive,
            .doc = "Optimizer steps of the whole training, those before a resume included.",
            .hint = "as many as epochs says"},
           &RunConfig::train, &TrainConfig::max_steps),
      bind({.path = "train.epochs",
            .type = Type::real,
            .presence = Presence::absent,
            .limits = {.above = 0, .at_most = 1000000},
            .doc = "The same in passes over data.train, as 3 or 0.5; the steps that it takes are "
                   "rounded up, so that no sequence is left out.",
            .hint = "max_steps says it"},
           &RunConfig::train, &TrainConfig::epochs),
      bind({.path = "train.max_time",
            .presence = Presence::absent,
            .doc = "Time that a start of the run may take, as 90m, 4h or 1h30m: it ends with its "
                   "state saved and exit code 75 before that is over, after one step at least.",
            .hint = "none; in a Slurm job, the job's own end"},
           &RunConfig::train, &TrainConfig::max_time),
  };
}

// Long: a table, an entry a key, in the order of docs/configuration.md.
std::vector<Key> numbers_keys() {
  return {
      bind({.path = "train.seed",
            .type = Type::seed,
            .doc = "Seed of initial weights, data order, dropout and stochastic rounding."},
           &RunConfig::train, &TrainConfig::seed),
      bind({.path = "train.device",
            .doc = "Where to train; `auto`: on GPUs where the program was built for them and the "
                   "host has one, else on the CPU."},
           &RunConfig::train, &TrainConfig::device),
      bind({.path = "train.cpu_threads",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Compute threads of each rank on the CPU.",
            .hint = "cores of the host / ranks on it"},
           &RunConfig::train, &TrainConfig::cpu_threads),
      bind({.path = "train.dtype",
            .doc = "Type of weights and activations in the layers; with `bf16` master weights, "
                   "moments, gradient sums and losses stay fp32, unless optimizer.master_dtype or "
                   "optimizer.moments_dtype says otherwise."},
           &RunConfig::train, &TrainConfig::dtype),
      bind({.path = "train.gradient_dtype",
            .doc = "Type in which the gradients of the layers' matrices are written, once a "
                   "micro-batch. `bf16` halves their memory and what the step moves of them, and "
                   "rounds each gradient once; all sums over micro-batches stay fp32: for steps of "
                   "one micro-batch, or with parallel.reduce_gradients per_micro_batch, and with "
                   "train.dtype bf16."},
           &RunConfig::train, &TrainConfig::gradient_dtype),
      bind({.path = "train.fp8",
            .doc = "`on`: the linears of the layers multiply in FP8 (e4m3 for activations and "
                   "weights, e5m2 for gradients, a scale for each tensor from its own largest "
                   "magnitude); all else stays as train.dtype says, which must be bf16. On GPUs of "
                   "compute capability 8.9 and above; on the CPU the same numbers without the "
                   "speed. See docs/gpu.md."},
           &RunConfig::train, &TrainConfig::fp8),
      bind({.path = "train.fp8_bf16_first_layers",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Layers at the beginning whose linears stay bf16 with train.fp8."},
           &RunConfig::train, &TrainConfig::fp8_bf16_first_layers),
      bind({.path = "train.fp8_bf16_last_layers",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Layers at the end whose linears stay bf16 with train.fp8."},
           &RunConfig::train, &TrainConfig::fp8_bf16_last_layers),
      bind({.path = "train.fp8_all_gather",
            .doc = "`on`, with train.fp8: a tensor that ranks hold in parts is cast with one scale "
                   "for the whole of it, and what sequence parallelism gathers of activations and "
                   "gradients, and ZeRO-3 of the layers' matrices, travels in FP8, in half the "
                   "bytes. `off`: in bf16, and scales are those of a rank's part. See "
                   "docs/layouts.md."},
           &RunConfig::train, &TrainConfig::fp8_all_gather),
      bind({.path = "train.attention_dropout",
            .type = Type::real,
            .limits = kShareOfDropped,
            .doc = "Share of the attention probabilities that training sets to zero, drawn from "
                   "train.seed alike on every layout; above 0 attention is not fused and slower; "
                   "evaluation and generation drop nothing."},
           &RunConfig::train, &TrainConfig::attention_dropout),
      bind({.path = "train.residual_dropout",
            .type = Type::real,
            .limits = kShareOfDropped,
            .doc = "Share of the embedding's output and of each sublayer's output that training "
                   "sets to zero, drawn likewise."},
           &RunConfig::train, &TrainConfig::residual_dropout),
      bind({.path = "train.z_loss",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Coefficient of the mean of logsumexp(logits)^2, which training minimises "
                   "beside the cross entropy to keep the logits small (1e-4 is usual); 0: none."},
           &RunConfig::train, &TrainConfig::z_loss),
      bind({.path = "train.nonfinite",
            .doc = "What becomes of a step whose loss or gradient norm is not finite: `stop` ends "
                   "the run with exit code 5; `skip` drops the step's update on every rank and "
                   "goes on, and the run stops after 10 such steps in a row."},
           &RunConfig::train, &TrainConfig::nonfinite),
      bind({.path = "train.deterministic",
            .type = Type::boolean,
            .doc = "On GPUs the same run twice gives the same bits: attention takes "
                   "FlashAttention-2 instead of cuDNN, whose backward adds in no fixed order; "
                   "slower. On the CPU that is always so."},
           &RunConfig::train, &TrainConfig::deterministic),
      bind({.path = "train.cuda_graphs",
            .doc = "`on`: on GPUs the second step is captured whole as a CUDA graph and replayed "
                   "from then on, unless dropout draws other numbers at each step; `off`: every "
                   "step is issued call by call; `auto`: whichever is faster, by timing some "
                   "of either among the first twenty. The numbers are the same."},
           &RunConfig::train, &TrainConfig::cuda_graphs),
      bind(
          {.path = "train.hang_timeout_s",
           .type = Type::integer,
           .limits = kNotNegative,
           .doc = "Seconds without progress after which a rank ends the job with exit code 6, "
                  "saying what it waits for: from its start on, and files that are read or written "
                  "and text that is tokenized are progress (a step of n micro-batches has "
                  "(n - 1) / 20 times as long on top); 0: never."},
          &RunConfig::train, &TrainConfig::hang_timeout_s),
  };
}

std::vector<Key> guard_keys() {
  return {
      bind({.path = "train.guard.action",
            .doc = "`stop` ends the run with exit code 5; `skip` drops the step's update on every "
                   "rank and goes on; `rollback` goes back to the last checkpoint and trains on "
                   "behind the step's batch, leaving out those between (before the first "
                   "checkpoint: as `skip`). The same on every layout and after a resume."},
           &RunConfig::train, &TrainConfig::guard, &GuardConfig::action),
      bind({.path = "train.guard.window",
            .type = Type::integer,
            .limits = {.at_least = 5, .at_most = 100000},
            .doc = "Steps whose losses and norms say what is usual; before that many nothing is an "
                   "outlier."},
           &RunConfig::train, &TrainConfig::guard, &GuardConfig::window),
      bind({.path = "train.guard.threshold",
            .type = Type::real,
            .limits = {.above = 0, .at_most = 1000000},
            .doc = "An outlier lies above the median of the window by more than so many times "
                   "1.4826 of the median distance from it (or of a hundredth of the median, where "
                   "that is more): its robust z-score."},
           &RunConfig::train, &TrainConfig::guard, &GuardConfig::threshold),
      bind({.path = "train.guard.limit",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Outliers that a run skips or goes back for, in all; at one more it stops."},
           &RunConfig::train, &TrainConfig::guard, &GuardConfig::limit),
  };
}

}  // namespace

std::vector<Key> train_keys() { return joined({batch_keys(), numbers_keys(), guard_keys()}); }

}  // namespace tptrain::config
