// The keys of optimizer and scheduler.
#include "config/key_binding.h"

namespace tptrain::config {

// Long: a table, an entry a key, in the order of docs/configuration.md.
std::vector<Key> optimizer_keys() {
  return {
      bind({.path = "optimizer.type",
            .doc =
                "Update rule: `adamw`; `lion` (Chen et al., 2023), which keeps one moment and "
                "moves every element by the learning rate: about a fifth of AdamW's, with as "
                "much more weight_decay, and betas [0.9, 0.99]; `muon` (Jordan et al., 2024; Liu "
                "et al., 2025): the matrices of the layers move by their orthogonalised momentum, "
                "all else by AdamW, with AdamW's learning rate and decay for both."},
           &RunConfig::optimizer, &OptimizerConfig::type),
      bind({.path = "optimizer.learning_rate",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Learning rate after the warm-up."},
           &RunConfig::optimizer, &OptimizerConfig::learning_rate),
      bind({.path = "optimizer.betas",
            .type = Type::betas,
            .doc = "Decay rates of the first and second moment; of lion: for the update, and of "
                   "its moment."},
           &RunConfig::optimizer, &OptimizerConfig::betas),
      bind({.path = "optimizer.eps",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "Of adamw: added to the root of the second moment."},
           &RunConfig::optimizer, &OptimizerConfig::eps),
      bind({.path = "optimizer.weight_decay",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Decoupled weight decay, of matrices only (not of norms and biases) where "
                   "groups says nothing else."},
           &RunConfig::optimizer, &OptimizerConfig::weight_decay),
      bind({.path = "optimizer.max_grad_norm",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Gradients with a larger global norm are scaled down to it; 0: no clipping."},
           &RunConfig::optimizer, &OptimizerConfig::max_grad_norm),
      bind({.path = "optimizer.groups",
            .type = Type::groups,
            .doc = "Other settings for the tensors whose whole Hugging Face name fits a glob "
                   "(`*`, `?`, `[abc]`): a list of `{match: GLOB, weight_decay: NUMBER, "
                   "learning_rate_scale: NUMBER}`, of which the first that fits counts; without "
                   "weight_decay the default rule holds, learning_rate_scale (1 where left out) "
                   "multiplies the learning rate.",
            .hint = "matrices decay, norms and biases do not"},
           &RunConfig::optimizer, &OptimizerConfig::groups),
      bind({.path = "optimizer.moments_dtype",
            .doc = "Type that the moments are stored in; `bf16` halves their memory and rounds "
                   "them after every update, which changes the numbers."},
           &RunConfig::optimizer, &OptimizerConfig::moments_dtype),
      bind({.path = "optimizer.master_dtype",
            .doc = "`fp32`: updates add up in fp32 master weights; `bf16`: there are none, which "
                   "saves their memory, and the update of the bf16 weights is rounded "
                   "stochastically, alike on every layout (needs train.dtype bf16)."},
           &RunConfig::optimizer, &OptimizerConfig::master_dtype),
      bind({.path = "optimizer.muon.momentum",
            .type = Type::real,
            .limits = {.at_least = 0, .below = 1},
            .doc = "Share of itself that the momentum keeps in an update."},
           &RunConfig::optimizer, &OptimizerConfig::muon, &MuonConfig::momentum),
      bind({.path = "optimizer.muon.nesterov",
            .type = Type::boolean,
            .doc = "The update looks ahead: it is made of the momentum and once more of the "
                   "gradient."},
           &RunConfig::optimizer, &OptimizerConfig::muon, &MuonConfig::nesterov),
      bind({.path = "optimizer.muon.steps",
            .type = Type::integer,
            .limits = {.at_least = 1, .at_most = 20},
            .doc = "Newton-Schulz iterations; each costs as much again."},
           &RunConfig::optimizer, &OptimizerConfig::muon, &MuonConfig::steps),
  };
}

std::vector<Key> scheduler_keys() {
  return {
      bind({.path = "scheduler.type",
            .doc = "Course of the learning rate after the warm-up: `constant`; `linear` and "
                   "`cosine` fall from the peak to min_lr at train.max_steps; `wsd` (warm-up, "
                   "stable, decay; Hu et al., MiniCPM, 2024) stays at the peak and falls linearly "
                   "over the last decay_steps."},
           &RunConfig::scheduler, &SchedulerConfig::type),
      bind({.path = "scheduler.warmup_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps over which the learning rate rises linearly."},
           &RunConfig::scheduler, &SchedulerConfig::warmup_steps),
      bind({.path = "scheduler.decay_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Of `wsd`: how many of the last steps fall from the peak to min_lr; at most "
                   "train.max_steps.",
            .hint = "a tenth of train.max_steps, at least 1"},
           &RunConfig::scheduler, &SchedulerConfig::decay_steps),
      bind({.path = "scheduler.min_lr",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Learning rate at train.max_steps, for linear, cosine and wsd."},
           &RunConfig::scheduler, &SchedulerConfig::min_lr),
  };
}

}  // namespace tptrain::config
