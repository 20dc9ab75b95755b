// Adapters on every layout and ZeRO stage against one rank.
#include <ATen/Parallel.h>

#include "support/layout_checks.h"

namespace tptrain::testing {
namespace {

using model::Recompute;
using tensor_parallel::SequenceParallel;

constexpr int64_t kSteps = 8;

struct Adapted {
  model::DecoderConfig config;
  config::AdapterConfig adapter;
  Recompute recompute = Recompute::none;
  SequenceParallel sequence_parallel = SequenceParallel::on;
};
std::vector<Adapted> adapted_models() {
  return {
      {odd_llama(), {.rank = 4}, Recompute::selective},
      // Copies of the kv head; a tied table that trains whole.
      {odd_qwen2(),
       {.rank = 3, .targets = {"q_proj", "v_proj", "down_proj"}, .modules_to_save = {"lm_head"}},
       Recompute::full},
      // One A of q, k and v.
      {odd_gpt2(), {.rank = 4, .dropout = 0.1}, Recompute::none, SequenceParallel::off},
      {odd_qwen3(), {.rank = 2, .rslora = true, .modules_to_save = {"embed_tokens", "lm_head"}}}};
}

TrainingOptions options_of(const Adapted& adapted) {
  // B begins at zero: a rate with which it is soon felt. LoRA+: B moves faster than A.
  TrainingOptions options{.steps = kSteps, .learning_rate = 4e-3};
  options.model.adapter = adapted.adapter;
  options.model.seed = 5;
  options.groups = {{.match = "*.lora_B.weight", .weight_decay = {}, .learning_rate_scale = 2.0}};
  return options;
}

}  // namespace

TEST_CASE("adapters train beside a base that stays as it was, bit by bit") {
  at::set_num_threads(1);
  for (const Adapted& adapted : adapted_models()) {
    CAPTURE(adapted.config.model_type);
    TrainingOptions options = options_of(adapted);
    const TrainingRun run = train_reference(adapted.config, options);
    CHECK(run.losses.back() < 0.98 * run.losses.front());
    options.learning_rate = 0.0;
    const TrainingRun initial = train_reference(adapted.config, options);
    options.model.adapter.reset();
    options.steps = 1;
    const TrainingRun base = train_reference(adapted.config, options);
    // B is zero: the adapted model begins as its base.
    CHECK(run.losses.front() == base.losses.front());
    for (const auto& [name, values] : run.masters) {
      CAPTURE(name);
      const bool trains = run.first_gradients.contains(name);
      CHECK((values == initial.masters.at(name)) == !trains);
      if (!trains) CHECK(values == base.masters.at(name));
    }
  }
}

TEST_CASE("adapters: every layout and stage trains like one rank, and stages bitwise alike") {
  at::set_num_threads(1);
  for (const Adapted& adapted : adapted_models()) {
    TrainingOptions options = options_of(adapted);
    const TrainingRun reference = train_reference(adapted.config, options);
    options.accumulation = 3;
    options.model.recompute = adapted.recompute;
    options.model.sequence_parallel = adapted.sequence_parallel;
    check_layouts_and_stages(adapted.config, options, reference);
  }
}

TEST_CASE("adapters: a step over tp and dp has no collective more than the base's") {
  at::set_num_threads(1);
  const auto calls = [](const comm::Communicator& axis) {
    const comm::CommCounters& counters = axis.counters();
    return counters.all_reduces + counters.reduce_scatters + counters.all_gathers +
           counters.broadcasts + counters.all_to_alls;
  };
  for (const Adapted& adapted : adapted_models()) {
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
      const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp()};
      for (const int stage : {0, 1, 2, 3}) {
        CAPTURE(adapted.config.model_type, shape.tp_size, shape.dp_size, stage);
        TrainingOptions options = options_of(adapted);
        options.steps = 6;  // so that what is done once, at the start, does not count
        options.zero_stage = stage;
        // Their gradients' sum over tp is that of the norms, which the base has where it is cut
        // along the sequence.
        options.model.sequence_parallel = SequenceParallel::on;
        int64_t of_tp[2], of_dp[2];
        for (const int with_adapter : {0, 1}) {
          if (with_adapter == 0) options.model.adapter.reset();
          if (with_adapter == 0) options.groups.clear();
          if (with_adapter == 1) options.model.adapter = adapted.adapter;
          const int64_t tp_before = calls(mesh.tp()), dp_before = calls(mesh.dp());
          train(adapted.config, axes, options);
          of_tp[with_adapter] = calls(mesh.tp()) - tp_before;
          of_dp[with_adapter] = calls(mesh.dp()) - dp_before;
        }
        CHECK(of_tp[1] <= of_tp[0]);
        // In stage 3 what trains and what is frozen are gathered one beside the other.
        if (stage < 3) CHECK(of_dp[1] <= of_dp[0]);
      }
    }
  }
}

}  // namespace tptrain::testing
