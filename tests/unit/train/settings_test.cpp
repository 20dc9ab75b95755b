// What a resume says of changed settings, and what it need not say.
#include "train/settings.h"

#include "config/parse.h"
#include "support/catch.h"

namespace tptrain::train {
namespace {

Settings settings(const std::vector<std::string>& sets) {
  return decisive_settings(
      config::parse_run_config(
          "run_dir: r\nmodel: {path: m}\ndata: {train: [a]}\ntrain: {max_steps: 10}\n", "run.yaml",
          sets)
          .config);
}

std::string changed(const std::vector<std::string>& sets) {
  return text_of(changed_settings(settings({}), settings(sets)));
}

TEST_CASE("each changed key stands with its old and its new value", "[train]") {
  CHECK(changed({}) == "");
  CHECK(changed({"optimizer.learning_rate=1e-2", "train.seed=7"}) ==
        "optimizer.learning_rate: 1e-5 -> 0.01; train.seed: 42 -> 7");
  CHECK(changed({"optimizer.groups=[{match: \"*.bias\", weight_decay: 0}]"}) ==
        "optimizer.groups: [] -> [{match: \"*.bias\", weight_decay: 0.0, learning_rate_scale: "
        "1.0}]");
}

TEST_CASE("what does not change the training is not told", "[train]") {
  CHECK(changed({"train.max_steps=20", "parallel={tp_size: 2, dp_size: 4, zero_stage: 3}",
                 "run_dir=elsewhere", "logging.every_steps=5", "checkpoint.keep=7",
                 "eval.every_steps=3", "train.hang_timeout_s=9", "train.micro_batch_size=2",
                 "data.train=[b]"}) == "");
}

TEST_CASE("more steps move the end of a falling learning rate, which is told", "[train]") {
  const auto moved = [](const std::vector<std::string>& sets, int64_t step) {
    config::RunConfig now;
    now.optimizer.learning_rate = 1e-3;
    now.scheduler.type = config::Schedule::cosine;
    now.train.max_steps = 20;
    return moved_schedule(settings(sets), now, step);
  };
  CHECK(
      moved({}, 10) ==
      "train.max_steps: 10 -> 20 moves the end of scheduler.type cosine: the learning rate goes on "
      "with 0.0005 instead of 0");
  CHECK(moved({}, 0) == "");  // both at the peak
  CHECK(moved({"train.max_steps=20"}, 10) == "");
  config::RunConfig constant;
  constant.train.max_steps = 20;
  CHECK(moved_schedule(settings({}), constant, 10) == "");
  CHECK(moved_schedule({}, constant, 10) == "");
}

TEST_CASE("a key that the checkpoint does not know counts as its default", "[train]") {
  Settings old = settings({});
  old.erase("train.z_loss");
  CHECK(changed_settings(old, settings({})).empty());
  CHECK(text_of(changed_settings(old, settings({"train.z_loss=1e-4"}))) ==
        "train.z_loss: 0.0 -> 1e-4");
  CHECK(text_of(changed_settings(settings({"train.z_loss=1e-4"}), old)) ==
        "train.z_loss: 1e-4 -> 0.0");
}

}  // namespace
}  // namespace tptrain::train
