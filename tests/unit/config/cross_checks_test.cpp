// What one key asks of another: refused with the place of a key that was given, and a remedy.
#include "config_test.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using config::Dtype;
using config::Fp8;
using config::ReduceGradients;

TEST_CASE("ZeRO 2 and 3 reduce after every micro-batch") {
  for (const std::string stage : {"2", "3"}) {
    CHECK(
        refusal(kMinimal + "parallel: {zero_stage: " + stage + ", reduce_gradients: per_step}\n") ==
        "config error: run.yaml:5:45: parallel.reduce_gradients is per_step and "
        "parallel.zero_stage " +
            stage +
            ": it must be per_micro_batch with zero_stage 2 and 3, where no rank has room for the "
            "whole gradient of a step.\n"
            "  Leave reduce_gradients out, or set zero_stage to 0 or 1.");
    const std::string set = "parallel.zero_stage=" + stage;
    CHECK(parse(kMinimal, {set, "parallel.reduce_gradients=per_micro_batch"})
              .parallel.reduce_gradients == ReduceGradients::per_micro_batch);
    CHECK_FALSE(parse(kMinimal, {set}).parallel.reduce_gradients.has_value());
  }
  for (const std::string stage : {"0", "1"}) {
    for (const ReduceGradients cadence :
         {ReduceGradients::per_step, ReduceGradients::per_micro_batch}) {
      CHECK(parse(kMinimal, {"parallel.zero_stage=" + stage,
                             std::string("parallel.reduce_gradients=") + word(cadence)})
                .parallel.reduce_gradients == cadence);
    }
  }
}

TEST_CASE("bf16 masters need bf16 weights; the other types stand alone") {
  CHECK(refusal(kMinimal, {"optimizer.master_dtype=bf16"}) ==
        "config error: --set optimizer.master_dtype=bf16: optimizer.master_dtype is bf16 and "
        "train.dtype fp32: it must be fp32 where the weights of the layers are.\n"
        "  Set train.dtype to bf16, or leave master_dtype out.");
  CHECK(
      parse(kMinimal, {"optimizer.master_dtype=bf16", "train.dtype=bf16"}).optimizer.master_dtype ==
      Dtype::bf16);
  CHECK(parse(kMinimal, {"optimizer.moments_dtype=bf16"}).optimizer.moments_dtype == Dtype::bf16);
  CHECK(parse(kMinimal, {"parallel.reduce_dtype=bf16"}).parallel.reduce_dtype == Dtype::bf16);
}

TEST_CASE("FP8 is cast from bf16") {
  CHECK(refusal(kMinimal, {"train.gradient_dtype=bf16"}) ==
        "config error: --set train.gradient_dtype=bf16: train.gradient_dtype is bf16 and "
        "train.dtype fp32: it must stand beside train.dtype bf16, whose products it is for.\n"
        "  Set train.dtype to bf16, or leave train.gradient_dtype out.");
  CHECK(
      refusal(kMinimal, {"train.gradient_dtype=bf16", "train.dtype=bf16", "optimizer.type=muon"}) ==
      "config error: --set train.gradient_dtype=bf16: train.gradient_dtype is bf16 and "
      "optimizer.type muon: it must be fp32 with muon, which works on whole matrices of them.\n"
      "  Leave train.gradient_dtype out, or take another optimizer.type.");
  CHECK(parse(kMinimal, {"train.gradient_dtype=bf16", "train.dtype=bf16"}).train.gradient_dtype ==
        Dtype::bf16);
  CHECK(parse(kMinimal).train.fp8 == Fp8::off);
  CHECK(refusal(kMinimal, {"train.fp8=on"}) ==
        "config error: --set train.fp8=on: train.fp8 is on and train.dtype fp32: it must stand "
        "beside train.dtype bf16, which is what FP8 is cast from.\n"
        "  Set train.dtype to bf16, or leave train.fp8 out.");
  CHECK(parse(kMinimal, {"train.fp8=on", "train.dtype=bf16"}).train.fp8 == Fp8::on);
  CHECK(refusal(kMinimal, {"train.fp8_all_gather=on"}) ==
        "config error: --set train.fp8_all_gather=on: train.fp8_all_gather is on and train.fp8 "
        "off: it must stand beside train.fp8 on, whose casts are what is gathered.\n"
        "  Set train.fp8 to on, or leave train.fp8_all_gather out.");
  CHECK(parse(kMinimal, {"train.fp8=on", "train.dtype=bf16", "train.fp8_all_gather=on"})
            .train.fp8_all_gather == Fp8::on);
}

TEST_CASE("documents that do not see each other train without dropout") {
  CHECK_FALSE(parse(kMinimal).data.document_mask);
  CHECK(parse(kMinimal, {"data.document_mask=true"}).data.document_mask);
  CHECK(parse(kMinimal, {"data.document_mask=true", "data.packing=none"}).data.document_mask);
  for (const std::string key : {"train.attention_dropout", "train.residual_dropout"}) {
    const std::string set = key + "=0.1";
    CHECK_NOTHROW(parse(kMinimal, {set}));
    CHECK(refusal(kMinimal, {"data.document_mask=true", set}) ==
          "config error: --set data.document_mask=true: data.document_mask is true and " + key +
              " 0.1: it must stand without dropout: the two are not supported together.\n"
              "  Set " +
              key + " to 0, or leave data.document_mask out.");
  }
}

TEST_CASE("decay_steps belongs to wsd and lies within the run") {
  CHECK(refusal(kMinimal, {"scheduler.decay_steps=2"}) ==
        "config error: --set scheduler.decay_steps=2: scheduler.decay_steps is 2 and "
        "scheduler.type constant, which never falls: it must stand beside scheduler.type wsd.\n"
        "  Set scheduler.type to wsd, or leave decay_steps out.");
  for (const std::string type : {"linear", "cosine"}) {
    CHECK(refusal(kMinimal + "scheduler: {type: " + type + ", decay_steps: 2}\n") ==
          "config error: run.yaml:5:40: scheduler.decay_steps is 2 and scheduler.type " + type +
              ", which falls from the warm-up on: it must stand beside scheduler.type wsd.\n"
              "  Set scheduler.type to wsd, or leave decay_steps out.");
  }
  CHECK(refusal(kMinimal, {"scheduler.type=wsd", "scheduler.decay_steps=11"}) ==
        "config error: --set scheduler.decay_steps=11: scheduler.decay_steps is 11 and "
        "train.max_steps 10: it must be at most train.max_steps.\n"
        "  Leave it out for a tenth of train.max_steps.");
  for (const int64_t steps : {0, 1, 10}) {
    CHECK(parse(kMinimal, {"scheduler.type=wsd", "scheduler.decay_steps=" + std::to_string(steps)})
              .scheduler.decay_steps == steps);
  }
  // As resolved_config.yaml writes it for the other types.
  CHECK(
      parse(kMinimal, {"scheduler.type=cosine", "scheduler.decay_steps=0"}).scheduler.decay_steps ==
      0);
}

TEST_CASE("sequence_parallel may be given with one tp rank") {
  CHECK(parse(kMinimal, {"parallel.tp_size=1", "parallel.sequence_parallel=true"})
            .parallel.sequence_parallel);
}

TEST_CASE("a learning rate falls, and does not rise to its minimum") {
  CHECK(refusal(kMinimal, {"scheduler.type=cosine", "scheduler.min_lr=1e-4"}) ==
        "config error: --set scheduler.min_lr=1e-4: scheduler.min_lr is 1e-4 and "
        "optimizer.learning_rate 1e-5: it must be at most the learning rate, which falls to it.\n"
        "  Lower it with the learning rate: a tenth of that is usual.");
  for (const char* set : {"scheduler.type=constant", "optimizer.learning_rate=1e-4"}) {
    INFO(set);
    CHECK(
        parse(kMinimal, {"scheduler.type=linear", "scheduler.min_lr=1e-4", set}).scheduler.min_lr ==
        1e-4);
  }
}

TEST_CASE("what shall be kept must be saved, evaluated, and be of one origin") {
  CHECK(refusal(kMinimal, {"checkpoint.keep_every=100"}) ==
        "config error: --set checkpoint.keep_every=100: checkpoint.keep_every is 100 and "
        "checkpoint.save_steps 0: it must be a multiple of it: what is not saved cannot be kept.");
  CHECK(refusal(kMinimal, {"checkpoint.keep_every=100", "checkpoint.save_steps=30"})
            .find("checkpoint.save_steps 30") != std::string::npos);
  CHECK(parse(kMinimal, {"checkpoint.keep_every=90", "checkpoint.save_steps=30"})
            .checkpoint.keep_every == 90);
  CHECK(
      refusal(kMinimal, {"eval.patience=3"}) ==
      "config error: --set eval.patience=3: eval.patience is 3, and there is no data.eval: it must "
      "stand beside data.eval or data.eval_share, whose losses it counts.");
  CHECK(
      refusal(kMinimal, {"checkpoint.keep_best=eval_loss"}) ==
      "config error: --set checkpoint.keep_best=eval_loss: checkpoint.keep_best is eval_loss, and "
      "there is no data.eval: it must stand beside data.eval or data.eval_share, of which that is "
      "the loss.");
  CHECK(refusal(kMinimal, {"checkpoint.init_from=runs/a", "checkpoint.resume=runs/b"}) ==
        "config error: --set checkpoint.init_from=runs/a: checkpoint.init_from stands beside the "
        "path of checkpoint.resume: it must be one of the two.\n"
        "  resume goes on with a training; init_from begins one with the weights of another.");
  CHECK(parse(kMinimal, {"checkpoint.init_from=runs/a"}).checkpoint.init_from == "runs/a");
}

TEST_CASE("a key that was refused asks nothing of another") {
  CHECK(refusal(kMinimal, {"scheduler.type=[wsd]", "scheduler.decay_steps=2"}) ==
        "config error: --set scheduler.type=[wsd]: scheduler.type is a list: it must be a single "
        "value.");
  CHECK(refusal(kMinimal, {"train.dtype=bf61", "optimizer.master_dtype=bf16"}) ==
        "config error: --set train.dtype=bf61: train.dtype is bf61: it must be one of fp32, bf16.\n"
        "  Did you mean bf16?");
}

TEST_CASE("data.eval_share is a share, and stands instead of files to evaluate on") {
  CHECK(
      parse(kMinimal, {"data.eval_share=0.5%", "checkpoint.keep_best=eval_loss"}).data.evaluates());
  for (const char* wrong : {"1000", "100%", "0%", "some"}) {
    CHECK(has(refusal(kMinimal, {std::string("data.eval_share=") + wrong}),
              std::string("data.eval_share is ") + wrong +
                  ": it must be a share below 100%, as 1% or 0.5%"));
  }
  CHECK(has(refusal(kMinimal, {"data.eval_share=1%", "data.eval=[a.txt]"}),
            "data.eval_share stands beside data.eval: it must be one of the two"));
}

}  // namespace
}  // namespace tptrain::testing
