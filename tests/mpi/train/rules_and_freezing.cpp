// Update rules beside AdamW, and weights that do not train, on every layout and ZeRO stage against
// one rank.
#include <ATen/Parallel.h>

#include <cmath>

#include "support/layout_checks.h"

namespace tptrain::testing {
namespace {

using tensor_parallel::SequenceParallel;

constexpr int64_t kSteps = 8;

struct Frozen {
  model::DecoderConfig config;
  std::vector<std::string> globs;
};
std::vector<Frozen> frozen_models() {
  return {// The first layers: backward stops above them.
          {odd_llama(), {"model.embed_tokens.*", "model.layers.0.*"}},
          // Within layers: products and biases of some, norms, copies of the kv head.
          {odd_qwen2(), {"*.self_attn.?_proj.*", "*layernorm.weight"}},
          // All but the norms; the tied table is read twice.
          {odd_qwen2(), {"*_proj.*", "model.embed_tokens.weight"}},
          {odd_gpt2(), {"model.embed_*", "model.layers.1.mlp.*"}}};
}

}  // namespace

TEST_CASE("what is frozen stays as it was, the rest gets the gradients of a training of all") {
  at::set_num_threads(1);
  for (const Frozen& frozen : frozen_models()) {
    CAPTURE(frozen.config.model_type, frozen.globs[0]);
    TrainingOptions options{.steps = 1};
    const TrainingRun all = train_reference(frozen.config, options);
    options.steps = kSteps;
    options.learning_rate = 0.0;
    const TrainingRun initial = train_reference(frozen.config, options);
    options.learning_rate = 1e-3;
    options.model.freeze = frozen.globs;
    const TrainingRun run = train_reference(frozen.config, options);
    CHECK(run.losses.front() == all.losses.front());
    CHECK(run.first_gradients.size() < all.first_gradients.size());
    double square = 0.0;
    for (const auto& [name, values] : run.first_gradients) {
      CHECK(values == all.first_gradients.at(name));
      for (const float value : values) square += static_cast<double>(value) * value;
    }
    CHECK(run.norms.front() == Approx(std::sqrt(square)).epsilon(1e-6));
    for (const auto& [name, values] : run.masters) {
      CAPTURE(name);
      CHECK((values == initial.masters.at(name)) == !run.first_gradients.contains(name));
    }
  }
}

TEST_CASE("freezing is what dropping those gradients is, step by step") {
  at::set_num_threads(1);
  for (const Frozen& frozen : frozen_models()) {
    CAPTURE(frozen.config.model_type, frozen.globs[0]);
    // Without a norm that they would count in.
    TrainingOptions options{.steps = kSteps, .max_grad_norm = 0.0};
    options.model.freeze = frozen.globs;
    const TrainingRun run = train_reference(frozen.config, options);
    options.model.freeze = {};
    for (const std::string& glob : frozen.globs)
      options.groups.push_back({.match = glob, .weight_decay = 0.0, .learning_rate_scale = 0.0});
    const TrainingRun dropped = train_reference(frozen.config, options);
    CHECK(run.losses == dropped.losses);
    CHECK(run.masters == dropped.masters);
    for (size_t step = 0; step < run.norms.size(); ++step)
      CHECK(run.norms[step] < dropped.norms[step]);
  }
}

TEST_CASE("frozen weights: every layout and stage trains like one rank") {
  at::set_num_threads(1);
  for (const Frozen& frozen : frozen_models()) {
    TrainingOptions options{.steps = kSteps, .accumulation = 3};
    options.model.freeze = frozen.globs;
    const TrainingRun reference = train_reference(frozen.config, options);
    options.model.sequence_parallel = SequenceParallel::on;
    CAPTURE(frozen.globs[0]);
    check_layouts_and_stages(frozen.config, options, reference);
  }
}

TEST_CASE("lion: every layout and stage trains like one rank, and stages bitwise alike") {
  at::set_num_threads(1);
  // An element whose mean of momentum and gradient is about zero takes a whole step of one sign or
  // the other: layouts, whose sums differ in the last bits, part there by 2 lr. So the rate is a
  // tenth of AdamW's, and the later gradients' bound ten times as wide.
  TrainingOptions options{.steps = kSteps,
                          .learning_rate = 1e-4,
                          .accumulation = 3,
                          .update_rule = config::OptimizerType::lion};
  const TrainingRun reference = train_reference(odd_qwen2(), options);
  CHECK(reference.losses.back() < reference.losses.front());
  check_layouts_and_stages(
      odd_qwen2(), options, reference,
      {.loss = 2e-6, .norm = 1e-4, .first_gradient = 1e-5, .last_gradient = 1e-3});
}

// To the contract's own bounds, although five Newton-Schulz steps multiply a small singular value,
// and what rounding has made of it, by up to 3.4^5.
TEST_CASE("muon: every layout and stage trains like one rank, and stages bitwise alike") {
  at::set_num_threads(1);
  for (const model::DecoderConfig& config : {odd_qwen2(), odd_llama(), odd_gpt2()}) {
    TrainingOptions options{
        .steps = kSteps, .accumulation = 3, .update_rule = config::OptimizerType::muon};
    const TrainingRun reference = train_reference(config, options);
    CHECK(reference.losses.back() < reference.losses.front());
    check_layouts_and_stages(config, options, reference);
  }
}

}  // namespace tptrain::testing
