// The keys of checkpoint, eval and logging.
#include "config/key_binding.h"

namespace tptrain::config {

// Long: a table, an entry a key, in the order of docs/configuration.md.
std::vector<Key> output_keys() {
  return {
      bind({.path = "checkpoint.save_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps from one checkpoint to the next; 0: only at the end."},
           &RunConfig::checkpoint, &CheckpointConfig::save_steps),
      bind({.path = "checkpoint.save_epochs",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Passes over data.train from one checkpoint to the next, beside save_steps; 0: "
                   "none of these."},
           &RunConfig::checkpoint, &CheckpointConfig::save_epochs),
      bind({.path = "checkpoint.keep",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "How many of the newest checkpoints to keep; 0: all."},
           &RunConfig::checkpoint, &CheckpointConfig::keep),
      bind({.path = "checkpoint.resume",
            .type = Type::path,
            .doc =
                "Where the first start begins. `auto`: at the newest valid checkpoint of run_dir, "
                "if it holds any; `never`: anew, in a run_dir of its own; else the directory of a "
                "checkpoint. A later start of the same command goes on from the newest checkpoint "
                "that grew from there."},
           &RunConfig::checkpoint, &CheckpointConfig::resume),
      bind({.path = "checkpoint.on_failure",
            .doc = "What happens where a checkpoint cannot be written, also when tried again. "
                   "`go_on`: a warning, and the next try when the next one is due; the run ends "
                   "with exit code 4 if the last one failed. `stop`: the run ends at once."},
           &RunConfig::checkpoint, &CheckpointConfig::on_failure),
      bind(
          {.path = "checkpoint.async",
           .type = Type::boolean,
           .doc = "Training goes on while a checkpoint is written, from a copy of the state in the "
                  "memory of the host. Where that has no room for it, or with `false`, training "
                  "waits."},
          &RunConfig::checkpoint, &CheckpointConfig::async),
      bind({.path = "checkpoint.allow_changes",
            .type = Type::words,
            .allowed = {"data.packing", "data.shuffle", "data.tokenizer", "data.train",
                        "train.global_batch_size", "train.seed", "train.seq_length"},
            .doc = "What may differ from the checkpoint that a run goes on from, although its "
                   "position in the data then means other sequences."},
           &RunConfig::checkpoint, &CheckpointConfig::allow_changes),
      bind({.path = "checkpoint.keep_every",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Checkpoints after a multiple of so many steps stay beside the newest "
                   "`checkpoint.keep`, for ever; a multiple of `checkpoint.save_steps`. 0: none."},
           &RunConfig::checkpoint, &CheckpointConfig::keep_every),
      bind({.path = "checkpoint.keep_best",
            .doc = "`eval_loss`: the checkpoint of the lowest loss on data.eval stays as well, "
                   "called RUN_DIR/best; an evaluation that is the best so far is followed by a "
                   "save of its step where it has none."},
           &RunConfig::checkpoint, &CheckpointConfig::keep_best),
      bind({.path = "checkpoint.init_from",
            .type = Type::path,
            .presence = Presence::absent,
            .doc = "A checkpoint of another run, its run_dir, or RUN_DIR/best: a run that begins "
                   "takes the weights of it and nothing else. Its model must be the same.",
            .hint = "none"},
           &RunConfig::checkpoint, &CheckpointConfig::init_from),
      bind({.path = "eval.every_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps from one evaluation on data.eval to the next; 0: only at the end."},
           &RunConfig::eval, &EvalConfig::every_steps),
      bind({.path = "eval.every_epochs",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Passes over data.train from one evaluation to the next, beside every_steps; 0: "
                   "none of these."},
           &RunConfig::eval, &EvalConfig::every_epochs),
      bind({.path = "eval.max_batches",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Global batches of one evaluation; 0: all of data.eval."},
           &RunConfig::eval, &EvalConfig::max_batches),
      bind({.path = "eval.patience",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Evaluations in a row without a lower loss than the best before, after which "
                   "the run ends as at max_steps; 0: it does not."},
           &RunConfig::eval, &EvalConfig::patience),
      bind({.path = "logging.every_steps",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Steps from one log line, and line of metrics.jsonl, to the next; step "
                   "train.max_steps has them in any case."},
           &RunConfig::logging, &LoggingConfig::every_steps),
      bind({.path = "logging.audit_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps from one audit to the next, which hashes the values that several ranks "
                   "must hold alike and ends the run where they differ; 0: never."},
           &RunConfig::logging, &LoggingConfig::audit_steps),
      bind({.path = "logging.tensorboard",
            .type = Type::boolean,
            .doc = "Writes the metrics as TensorBoard's event files as well, to "
                   "run_dir/tensorboard."},
           &RunConfig::logging, &LoggingConfig::tensorboard),
      bind({.path = "logging.fp8_counts",
            .type = Type::boolean,
            .doc = "With train.fp8: the metrics say which share of the elements that rank 0 cast "
                   "to FP8 became zero (`fp8_flushed`), and how many were too large "
                   "(`fp8_saturated`). Steps are slower with it."},
           &RunConfig::logging, &LoggingConfig::fp8_counts),
  };
}

}  // namespace tptrain::config
