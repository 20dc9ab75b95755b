// --set section.key=value: what it replaces, and what is refused.
#include "config_test.h"

namespace tptrain::testing {
namespace {

TEST_CASE("an override replaces the file's value, and of two the later counts") {
  CHECK(parse(kMinimal, {"train.max_steps=20"}).train.max_steps == 20);
  CHECK(parse(kMinimal, {"train.max_steps=20", "train.max_steps=30"}).train.max_steps == 30);
  CHECK(parse(kMinimal, {"run_dir=runs/b"}).run_dir == "runs/b");
  CHECK(parse(kMinimal, {"optimizer.learning_rate=1e-3"}).optimizer.learning_rate == 1e-3);
  CHECK(parse(kMinimal, {"run_dir=a=b"}).run_dir == "a=b");
}

TEST_CASE("lists and sections can be overridden") {
  const std::vector<config::DataSource> expected = {{"a"}, {"b"}};
  CHECK(parse(kMinimal, {"data.train=[a,b]"}).data.train == expected);
  CHECK(parse(kMinimal, {"optimizer.betas=[0.8, 0.9]"}).optimizer.betas ==
        std::vector<double>{0.8, 0.9});
  const auto config =
      parse(kMinimal + "parallel: {tp_size: 4, zero_stage: 0}\n", {"parallel={tp_size: 2}"});
  CHECK(config.parallel.tp_size == 2);
  CHECK(config.parallel.zero_stage == 0);
}

TEST_CASE("overrides alone can fill an empty file") {
  const auto config =
      parse("", {"run_dir=r", "model.path=m", "data.train=[a]", "train.max_steps=1"});
  CHECK(config.model.path == "m");
}

TEST_CASE("an alternative set by an override drops the file's") {
  const std::string text =
      "run_dir: r\ndata: {train: [a]}\nmodel: {path: m}\n"
      "train: {max_steps: 1, global_batch_size: 8}\n";
  const auto parsed = config::parse_run_config(text, "run.yaml", {"train.grad_accum_steps=2"});
  CHECK(parsed.config.train.grad_accum_steps == 2);
  CHECK(parsed.config.train.global_batch_size == 0);
  CHECK(parsed.places.count("train.global_batch_size") == 0);

  const auto reshaped = parse(text, {"model.architecture={hidden_size: 64, intermediate_size: 128, "
                                     "num_hidden_layers: 2, num_attention_heads: 4}"});
  CHECK(reshaped.model.path == "");
  REQUIRE(reshaped.model.architecture);
  CHECK(reshaped.model.architecture->hidden_size == 64);
}

TEST_CASE("model.path drops the whole architecture of the file, and a key of it changes it") {
  const std::string text =
      "run_dir: r\ndata: {train: [a]}\ntrain: {max_steps: 1}\nmodel: {architecture: {hidden_size: "
      "64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}}\n";
  const auto with_path = parse(text, {"model.path=m"});
  CHECK(with_path.model.path == "m");
  CHECK(!with_path.model.architecture);
  const auto wider = parse(text, {"model.architecture.hidden_size=128"});
  REQUIRE(wider.model.architecture);
  CHECK(wider.model.architecture->hidden_size == 128);
  CHECK(wider.model.architecture->num_hidden_layers == 2);
}

TEST_CASE("an architecture key over a file with model.path names what the shape lacks") {
  check_contains(refusal(kMinimal, {"model.architecture.hidden_size=64"}),
                 "--set model.architecture.hidden_size=64: "
                 "model.architecture.num_hidden_layers is missing");
}

TEST_CASE("both alternatives as overrides are refused") {
  CHECK(refusal(kMinimal, {"train.grad_accum_steps=2", "train.global_batch_size=8"}) ==
        "config error: --set train.grad_accum_steps=2: train.global_batch_size and "
        "train.grad_accum_steps are both given: it must be at most one of global_batch_size | "
        "grad_accum_steps.\n  Remove one of them; the other stands at --set "
        "train.global_batch_size=8.");
  check_contains(refusal(kMinimal, {"model.path=m", "model.architecture.hidden_size=64"}),
                 "model.path and model.architecture are both given");
}

TEST_CASE("overrides of unknown keys are refused") {
  CHECK(refusal(kMinimal, {"parallel.tp_sze=2"}) ==
        "config error: --set parallel.tp_sze=2: parallel.tp_sze is no known key.\n"
        "  Did you mean parallel.tp_size?");
  CHECK(refusal(kMinimal, {"tp_size=2"}) ==
        "config error: --set tp_size=2: tp_size is no known key.\n"
        "  Did you mean parallel.tp_size?");
  CHECK(refusal(kMinimal, {"parallel={tp_sze: 2}"}) ==
        "config error: --set parallel={tp_sze: 2}: parallel.tp_sze is no known key.\n"
        "  Did you mean parallel.tp_size?");
  CHECK(refusal(kMinimal, {"paralel.tp_size=2"}) ==
        "config error: --set paralel.tp_size=2: paralel.tp_size is no known key.\n"
        "  Did you mean parallel.tp_size?");
  CHECK(refusal(kMinimal, {"data.train.0.path=a"}) ==
        "config error: --set data.train.0.path=a: data.train.0.path is no known key.\n"
        "  data.train is one value: set it as a whole, --set data.train=...");
}

TEST_CASE("overrides of another form or type are refused") {
  for (const std::string text : {"train.max_steps", "=3", ""}) {
    CHECK(refusal(kMinimal, {text}) ==
          "config error: --set " + text +
              ": this names no key and value: it must have the form section.key=value.\n"
              "  For example --set train.max_steps=100.");
  }
  CHECK(refusal(kMinimal, {"parallel.tp_size=x"}) ==
        "config error: --set parallel.tp_size=x: parallel.tp_size is x: it must be an integer, in "
        "digits only.");
  CHECK(refusal(kMinimal, {"run_dir="}) ==
        "config error: --set run_dir=: run_dir is null: it must have a value.\n"
        "  Give one, as in `run_dir: runs/my-run`.");
  CHECK(refusal(kMinimal, {"parallel=4"}) ==
        "config error: --set parallel=4: parallel is 4: it must be a mapping of the keys tp_size, "
        "dp_size, zero_stage, sequence_parallel, recompute, reduce_gradients, reduce_dtype, "
        "tp_overlap, dp_overlap.\n  Write each key on its own line, as `key: value`.");
  CHECK(refusal(kMinimal, {"data.train=[*.txt]"})
            .rfind("config error: --set data.train=[*.txt]: this is not valid YAML: ", 0) == 0);
  check_contains(refusal(kMinimal, {"data.train=[*.txt]"}),
                 "\n  The value is read as YAML: put quotes within quotes around texts "
                 "that hold : # [ ] { } * or &, as in --set 'data.train=\"...\"'.");
}

TEST_CASE("an override does not hide a mistake in the file") {
  check_contains(
      refusal("run_dir: r\nmodel: {path: m}\ndata: {train: [a]}\ntrain: {max_steps: x}\n",
              {"train.max_steps=5"}),
      "run.yaml:4:20: train.max_steps is x");
}

}  // namespace
}  // namespace tptrain::testing
