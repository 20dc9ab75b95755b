// The step of ZeRO on one rank against plain AdamW.
#include <limits>
#include <optional>

#include "support/catch.h"
#include "unit/zero/one_rank.h"

namespace tptrain::zero {

TEST_CASE("five steps on one rank follow plain AdamW", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    for (const double max_norm : {0.0, 1.0, 1e6}) {
      config::OptimizerConfig optimizer = optimizer_config();
      optimizer.max_grad_norm = max_norm;
      OneRank one({.zero_stage = stage, .optimizer = optimizer});
      testing::Reference reference(kSeed);
      for (int step = 0; step < 5; ++step) {
        const double expected_norm = reference.step(step, optimizer);
        const StepNumbers numbers = one.step(step, optimizer, {}, 0.5f + step);
        CHECK(numbers.finite.item<bool>());
        CHECK(numbers.culprit.item<int64_t>() == -1);
        CHECK(numbers.losses.item<float>() == 0.5f + step);
        CHECK(numbers.norm.item<float>() == static_cast<float>(expected_norm));
      }
      CHECK(one.zero.state().updates_done() == 5);
      const auto master = assembled(one.zero, sharding::kMaster);
      const auto exp_avg = assembled(one.zero, "exp_avg");
      const auto exp_avg_sq = assembled(one.zero, "exp_avg_sq");
      for (size_t i = 0; i < master.size(); ++i) {
        INFO(testing::global_tensors()[i].name);
        // fp32 against double over five steps.
        CHECK(testing::relative_difference(master[i], reference.master[i]) < 1e-6);
        CHECK(testing::relative_difference(exp_avg[i], reference.exp_avg[i]) < 1e-6);
        CHECK(testing::relative_difference(exp_avg_sq[i], reference.exp_avg_sq[i]) < 1e-6);
      }
    }
  }
}

TEST_CASE("weight decay pulls matrices only", "[zero]") {
  config::OptimizerConfig optimizer = optimizer_config();
  optimizer.weight_decay = 0.5;
  OneRank one({.optimizer = optimizer});
  const auto before = assembled(one.zero, sharding::kMaster);
  std::vector<at::Tensor> old;
  for (const at::Tensor& tensor : before) old.push_back(tensor.clone());
  one.zero.prepare_step(0.1);
  one.zero.begin_step();  // zero gradient: only the decay acts
  one.zero.finish_reduction();
  one.zero.clip(0, no_losses());
  one.zero.update();
  const auto after = assembled(one.zero, sharding::kMaster);
  const auto tensors = testing::global_tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    INFO(tensors[i].name);
    if (tensors[i].decays()) {
      CHECK(testing::relative_difference(after[i], old[i] * 0.95) < 1e-6);
    } else {
      CHECK(at::equal(after[i], old[i]));
    }
  }
}

TEST_CASE("learning rate and decay follow the groups of the config", "[zero]") {
  config::OptimizerConfig optimizer = optimizer_config();
  optimizer.weight_decay = 0.5;
  optimizer.groups = {
      {.match = "*.router", .weight_decay = std::nullopt, .learning_rate_scale = 0.0},
      {.match = "*.o", .weight_decay = 0.0}};
  OneRank one({.optimizer = optimizer});
  const auto before = snapshot(one.zero);
  one.zero.prepare_step(0.1);
  one.zero.begin_step();
  one.zero.finish_reduction();
  one.zero.clip(0, no_losses());
  one.zero.update();
  const auto pieces = one.zero.state().state_dict().pieces;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string& name = pieces[i].spec.name;
    if (pieces[i].kind != sharding::kMaster) continue;
    INFO(name);
    const bool still = name.ends_with(".router") || name.ends_with(".o") ||
                       pieces[i].spec.global_shape.size() == 1;
    if (still) {
      CHECK(at::equal(pieces[i].data, before[i]));
    } else {
      CHECK(testing::relative_difference(pieces[i].data, before[i] * 0.95) < 1e-6);
    }
  }
}

TEST_CASE("a non-finite number changes nothing, does not count, and names its parameter",
          "[zero]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const int stage : {0, 1, 2, 3}) {
    for (const float poison : {nan, inf, -inf}) {
      OneRank one({.zero_stage = stage, .optimizer = optimizer_config()});
      one.step(0, optimizer_config());
      const auto before = snapshot(one.zero);
      const auto check_untouched = [&](const StepNumbers& numbers, int64_t culprit) {
        CHECK_FALSE(numbers.finite.item<bool>());
        CHECK(numbers.culprit.item<int64_t>() == culprit);
        CHECK(one.zero.state().updates_done() == 1);
        const auto after = snapshot(one.zero);
        for (size_t i = 0; i < before.size(); ++i) CHECK(at::equal(before[i], after[i]));
      };
      int call = 0;  // the second of four micro-batches alone
      const StepNumbers numbers =
          one.step(1, optimizer_config(), {.gradient = [&](int block) {
                     if (block != 1 || call++ != 1) return;
                     one.model.parameters[3]->main_grad.view({-1})[4] = poison;
                     one.model.parameters[5]->main_grad.view({-1})[0] = poison;
                   }});
      check_untouched(numbers, 3);
      CHECK(one.buckets.parameter_name(numbers.culprit.item<int64_t>()) == "layers.0.qkv_bias");
      check_untouched(one.step(1, optimizer_config(), {}, poison), -2);
      CHECK(one.step(1, optimizer_config()).finite.item<bool>());
      CHECK(one.zero.state().updates_done() == 2);
    }
  }
}

TEST_CASE("a step above its bounds changes nothing and does not count", "[zero]") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const int stage : {0, 1, 2, 3}) {
    OneRank one({.zero_stage = stage, .optimizer = optimizer_config(), .bounded = true});
    CHECK(one.step(0, optimizer_config()).applied.item<bool>());  // infinite until they are set
    const auto before = snapshot(one.zero);
    const auto norm = one.step(1, optimizer_config()).norm.item<float>();
    const auto after_two = snapshot(one.zero);
    for (const auto& [loss, bound_of_norm] : {std::pair{0.5f, inf}, std::pair{inf, norm / 2}}) {
      one.zero.set_bounds(loss, bound_of_norm);
      const StepNumbers numbers = one.step(1, optimizer_config());
      CHECK(numbers.finite.item<bool>());
      CHECK_FALSE(numbers.applied.item<bool>());
      CHECK(one.zero.state().updates_done() == 2);
      const auto after = snapshot(one.zero);
      for (size_t i = 0; i < after.size(); ++i) CHECK(at::equal(after_two[i], after[i]));
    }
    one.zero.set_bounds(1.0f, inf);  // a loss of 1 is at its bound, not above
    CHECK(one.step(2, optimizer_config()).applied.item<bool>());
    CHECK(one.zero.state().updates_done() == 3);
    CHECK_FALSE(at::equal(before[0], snapshot(one.zero)[0]));
  }
  OneRank plain({.optimizer = optimizer_config()});
  CHECK(message_of([&] { plain.zero.set_bounds(1, 1); }).find("asked for at the beginning") !=
        std::string::npos);
}

TEST_CASE("one rank communicates nothing", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    OneRank one({.zero_stage = stage, .optimizer = optimizer_config()});
    one.step(0, optimizer_config());
    one.zero.state().state_loaded(1);
    one.zero.state().hash_parameters();
    for (const comm::Communicator* axis : {one.tp.get(), one.dp.get()}) {
      CHECK(axis->counters().all_reduces == 0);
      CHECK(axis->counters().reduce_scatters == 0);
      CHECK(axis->counters().all_gathers == 0);
    }
  }
}

TEST_CASE("begin_step clears gradients, and may drop a step", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    for (const bool per_micro_batch : {false, true}) {
      OneRank one({.zero_stage = stage,
                   .optimizer = optimizer_config(),
                   .reduce_per_micro_batch = per_micro_batch});
      OneRank clean({.zero_stage = stage,
                     .optimizer = optimizer_config(),
                     .reduce_per_micro_batch = per_micro_batch});
      one.zero.begin_step();
      testing::run_micro_batch(one.model, one.zero, 0, 0);
      one.zero.begin_step();  // in the middle of a step
      testing::run_micro_batch(one.model, one.zero, 0, 1);
      one.zero.finish_reduction();
      one.step(3, optimizer_config());
      clean.step(3, optimizer_config());
      const auto expected = snapshot(clean.zero), actual = snapshot(one.zero);
      for (size_t i = 0; i < expected.size(); ++i) CHECK(at::equal(expected[i], actual[i]));
    }
  }
}

TEST_CASE("a gradient that nobody writes in a step is zero, not the last step's", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    for (const bool per_micro_batch : {false, true}) {
      for (const bool with_backward : {false, true}) {
        OneRank one({.zero_stage = stage,
                     .optimizer = optimizer_config(),
                     .reduce_per_micro_batch = per_micro_batch});
        one.step(0, optimizer_config());
        one.zero.begin_step();
        if (with_backward) {  // without a single gradient
          one.zero.begin_micro_batch(MicroBatchPlace::last);
          for (int block = 4; block >= 0; --block) {
            one.observer().before_backward(block);
            one.observer().after_backward(block);
          }
        }
        one.zero.finish_reduction();
        CHECK(one.zero.clip(0, no_losses()).norm.item<float>() == 0);
        for (const StatePiece& piece : one.zero.state().gradient_pieces().pieces)
          CHECK(at::count_nonzero(piece.data).item<int64_t>() == 0);
      }
    }
  }
}

TEST_CASE("bf16 parameters are their fp32 masters rounded", "[zero]") {
  for (const int stage : {0, 1, 2, 3}) {
    OneRank one({.zero_stage = stage, .optimizer = optimizer_config()}, at::kBFloat16);
    OneRank fp32({.zero_stage = stage, .optimizer = optimizer_config()});
    for (int step = 0; step < 3; ++step) {
      one.step(step, optimizer_config());
      fp32.step(step, optimizer_config());
    }
    const auto state = snapshot(one.zero), expected = snapshot(fp32.zero);
    for (size_t i = 0; i < state.size(); ++i) CHECK(at::equal(state[i], expected[i]));
    const auto masters = assembled(one.zero, sharding::kMaster);
    const auto tensors = testing::global_tensors();
    int64_t seen = 0;
    testing::run_forward(
        one.model, one.zero, {.use = [&](int block) {
          for (const parameters::Parameter* parameter : one.model.blocks[block].parameters) {
            for (const auto& slice : parameter->slices) {
              for (size_t i = 0; i < tensors.size(); ++i) {
                if (tensors[i].name != slice.spec.name) continue;
                ++seen;
                CHECK(at::equal(
                    parameter->data.view({-1}).narrow(0, slice.offset, tensors[i].numel()),
                    masters[i].to(at::kBFloat16)));
              }
            }
          }
        }});
    CHECK(seen == static_cast<int64_t>(tensors.size()));
  }
}

TEST_CASE("what the optimizer cannot do is refused", "[zero]") {
  const auto construct = [](ZeroOptimizer::Options options, int dp_rank, int dp_size) {
    SyntheticModel model = synthetic_model(0, 1);
    ParamBuckets buckets(model.blocks, {.rank = 0, .size = 1}, {.zero_stage = 1});
    const auto tp = comm::single_rank_communicator("tp");
    const auto dp = comm::planning_communicator("dp", dp_rank, dp_size);
    ZeroOptimizer zero(buckets, *tp, *dp, options);
  };
  const auto with = [](const auto& change) {
    ZeroOptimizer::Options options;
    change(options.optimizer);
    return options;
  };
  CHECK(message_of([&] { construct({.zero_stage = 2}, 0, 1); }) ==
        "internal error: ZeRO stage 2 over buckets of stage 1: it must be the same.");
  CHECK(message_of([&] { construct(with([](auto& o) { o.betas = {0.9}; }), 0, 1); }) ==
        "internal error: 1 betas: it must be two.");
  CHECK(message_of([&] { construct({}, 1, 2); }) ==
        "internal error: buckets laid out for dp rank 0 of 1, communicator of dp rank 1 of 2: it "
        "must be the same.");
  CHECK(message_of([&] {
          construct(with([](auto& o) { o.master_dtype = config::Dtype::bf16; }), 0, 1);
        }) ==
        "internal error: master_dtype bf16 with fp32 parameters: it must be fp32, or the "
        "parameters bf16.");
  CHECK(message_of([&] { construct({.reduce_dtype = at::kHalf}, 0, 1); }) ==
        "internal error: reduction in Half: it must be in fp32 or bf16.");
}

TEST_CASE("the calls of a step out of order are refused", "[zero]") {
  OneRank one({.optimizer = optimizer_config()});
  const std::string order =
      " of the optimizer was called out of order: it must follow begin_step, finish_reduction, "
      "clip, update.\n  ";
  one.zero.begin_step();
  CHECK(message_of([&] { one.zero.clip(1.0, no_losses()); }) ==
        "internal error: clip()" + order + "Call finish_reduction() before it.");
  CHECK(message_of([&] { one.zero.state().gradient_pieces(); }) ==
        "internal error: gradient_pieces() was called before finish_reduction(): it must follow "
        "it: this rank's gradient is not yet the sum over dp.");
  one.zero.finish_reduction();
  CHECK(message_of([&] { one.zero.finish_reduction(); }) ==
        "internal error: finish_reduction()" + order +
            "Call it once a step: a second sum over dp would count every gradient dp times.");
  CHECK(message_of([&] { one.zero.update(); }) ==
        "internal error: update()" + order +
            "Call clip() before it, with max_norm 0 for no limit.");
  const std::string new_step = "Call begin_step() before the backward of a new step.";
  CHECK(message_of([&] { one.observer().before_backward(4); }) ==
        "internal error: before_backward()" + order + new_step);
  CHECK(message_of([&] { one.observer().after_backward(4); }) ==
        "internal error: after_backward()" + order + new_step);
  CHECK(message_of([&] { one.zero.begin_micro_batch(MicroBatchPlace::last); }) ==
        "internal error: begin_micro_batch()" + order +
            "Call begin_step() before the first micro-batch of a step.");
  const std::string losses = "internal error: the losses given to clip(): it must be a 1-D fp32 ";
  CHECK(message_of([&] { one.zero.clip(1.0, at::Tensor()); }) == losses + "tensor on cpu.");
  CHECK(message_of([&] { one.zero.clip(1.0, at::zeros({})); }) == losses + "tensor on cpu.");
  CHECK(message_of([&] { one.buckets.parameter_name(99); }) ==
        "internal error: name of parameter 99: it must be one of 16, from 0.");
  CHECK(message_of([&] { one.zero.state().state_loaded(-1); }) ==
        "internal error: -1 updates done: it must not be negative.");
}

TEST_CASE("a micro-batch after the last one is refused where gradients have left", "[zero]") {
  OneRank one({.zero_stage = 1, .optimizer = optimizer_config()});
  one.zero.begin_step();
  one.zero.begin_micro_batch(MicroBatchPlace::last);
  testing::run_micro_batch(one.model, one.zero, 0, 0);
  CHECK(message_of([&] { testing::run_micro_batch(one.model, one.zero, 0, 1); }) ==
        "internal error: backward of block 'head' after its gradient was reduced: it must come "
        "before it.\n  MicroBatchPlace::last is for a step's last micro-batch.");
}

TEST_CASE("stage 3 never holds all parameters at once", "[zero]") {
  OneRank one({.zero_stage = 3, .optimizer = optimizer_config()});
  CHECK(message_of([&] { one.zero.state().gather_parameters(); }) ==
        "internal error: all parameters at once in ZeRO stage 3: it must be read block by block: "
        "memory holds no more than its slots.");
}

}  // namespace tptrain::zero
