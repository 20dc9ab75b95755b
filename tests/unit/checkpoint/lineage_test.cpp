// Where a start begins, by what run_dir holds; and which checkpoints a run calls its own.
#include "checkpoint/lineage.h"

#include <filesystem>

#include "base/error.h"
#include "checkpoint/manifest.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;
using checkpoint::choose_start;
using checkpoint::Holdings;
using checkpoint::RunIdentity;
using checkpoint::Start;
using checkpoint::Verdict;

std::string id(char digit) { return std::string(32, digit); }

Verdict held(const std::string& name, int64_t sequence, const RunIdentity& run) {
  checkpoint::CheckpointInfo info;
  info.path = name;
  info.save_id = id('0');
  info.save_sequence = sequence;
  info.state.run = run;
  return {.path = name, .info = info, .problem = {}};
}

std::vector<std::string> names(const std::vector<Verdict>& verdicts) {
  std::vector<std::string> out;
  for (const Verdict& verdict : verdicts) out.push_back(verdict.path.string());
  return out;
}

checkpoint::TrainState state_of_run(int64_t step, const RunIdentity& run) {
  checkpoint::TrainState state = train_state_of(step);
  state.run = run;
  return state;
}

const RunIdentity kNever{.id = id('a'), .begun_by = config::Resume::never};
const RunIdentity kAuto{.id = id('b'), .begun_by = config::Resume::automatic};
const RunIdentity kBranch{.id = id('c'),
                          .begun_by = config::Resume::path,
                          .origins = {id('1'), id('2')},
                          .origin_path = "/x/step-2"};

Start start_by(const std::string& resume, const Holdings& holdings) {
  config::CheckpointConfig config;
  config.resume = resume;
  return choose_start(config, holdings);
}

TEST_CASE("auto takes whatever was saved last, and begins where there is nothing") {
  const std::vector<Verdict> none;
  const Start anew = start_by("auto", {.run_dir = "r", .checkpoints = none});
  CHECK(anew.from == Start::From::nothing);
  CHECK(anew.run.begun_by == config::Resume::automatic);
  CHECK(anew.run.id.size() == 32);
  const std::vector<Verdict> two = {held("b", 2, kBranch), held("a", 1, kAuto)};
  const Start on = start_by("auto", {.run_dir = "r", .checkpoints = two});
  CHECK(on.from == Start::From::run_dir);
  CHECK(names(on.candidates) == std::vector<std::string>{"b", "a"});
}

TEST_CASE("never goes on with a run that never began, and with no other") {
  const std::vector<Verdict> own = {held("n", 3, kNever), held("a", 1, kAuto)};
  const Start on = start_by("never", {.run_dir = "r", .checkpoints = own});
  CHECK(on.from == Start::From::run_dir);
  CHECK(names(on.candidates) == std::vector<std::string>{"n"});

  const auto refused = [](const Holdings& holdings) {
    return message_of<ConfigError>([&] { start_by("never", holdings); });
  };
  const std::vector<Verdict> other = {held("a", 3, kAuto), held("n", 1, kNever)};
  CHECK(has(refused({.run_dir = "r", .checkpoints = other}),
            "run_dir r holds 2 checkpoints of another run"));
  const std::vector<Verdict> unknown = {held("u", 1, {})};
  CHECK(has(refused({.run_dir = "r", .checkpoints = unknown}), "1 checkpoint of another run"));
  const std::vector<Verdict> none;
  CHECK(has(refused({.run_dir = "r", .checkpoints = none, .has_metrics = true}), "metrics.jsonl"));
  CHECK(has(refused({.run_dir = "r", .checkpoints = none, .current = kAuto, .has_metrics = true}),
            "Set run_dir to another directory"));

  // Ended before its first checkpoint: the metrics are its own, and so is the name.
  const Start again = start_by(
      "never", {.run_dir = "r", .checkpoints = none, .current = kNever, .has_metrics = true});
  CHECK(again.from == Start::From::nothing);
  CHECK(again.run == kNever);
}

TEST_CASE("a path is followed to what grew from it, also over further branches") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  const auto origin = store.save(state_of({}, 0, 1), state_of_run(1, kAuto));
  const std::string path = origin.path.string();

  const std::vector<Verdict> others = {held("a", 9, kAuto), held("c", 8, kBranch)};
  const Start first = start_by(path, {.run_dir = "r", .checkpoints = others});
  CHECK(first.from == Start::From::path);
  CHECK(first.run.begun_by == config::Resume::path);
  CHECK(first.run.origin_path == path);

  const RunIdentity grown{
      .id = id('d'), .begun_by = config::Resume::path, .origins = {origin.save_id}};
  const RunIdentity further{
      .id = id('e'), .begun_by = config::Resume::path, .origins = {origin.save_id, id('3')}};
  const std::vector<Verdict> after = {held("a", 9, kAuto), held("e", 8, further),
                                      held("d", 7, grown)};
  const Start later = start_by(path, {.run_dir = "r", .checkpoints = after});
  CHECK(later.from == Start::From::run_dir);
  CHECK(names(later.candidates) == std::vector<std::string>{"e", "d"});

  // Ended before its first checkpoint: the same run begins again.
  const std::vector<Verdict> none;
  CHECK(start_by(path, {.run_dir = "r", .checkpoints = none, .current = grown}).run.id == grown.id);
}

TEST_CASE("a path that is gone is known by its place") {
  const std::vector<Verdict> grown = {held("c", 8, kBranch)};
  const Start on = start_by("/x/y/../step-2/", {.run_dir = "r", .checkpoints = grown});
  CHECK(on.from == Start::From::run_dir);
  const Start other = start_by("/x/step-3", {.run_dir = "r", .checkpoints = grown});
  CHECK(other.from == Start::From::path);
}

TEST_CASE("the name of a run survives the manifest and its own file; changed ones are refused") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir / "checkpoints"});
  checkpoint::TrainState state = state_of_run(1, kBranch);
  state.settings = {{"train.seed", "42"}, {"optimizer.type", "adamw"}};
  state.extra = {{"sampler", "at 7"}, {"guard", "{\"self_hash\":\"\"}"}};
  state.base_path = "models/a";
  state.base_identity = "c0ffee";
  store.save(state_of({}, 0, 1), state);
  const auto found = store.newest().info;
  REQUIRE(found);
  CHECK(found->state.run == kBranch);
  CHECK(found->state.settings == state.settings);
  CHECK(found->state.extra == state.extra);
  CHECK(found->state.base_path == state.base_path);
  CHECK(found->state.base_identity == state.base_identity);

  CHECK(!checkpoint::read_run_identity(dir.path()));
  checkpoint::write_run_identity(dir.path(), kBranch);
  CHECK(checkpoint::read_run_identity(dir.path()) == kBranch);
  dir.put(".run.json", "{\"id\": 3}");
  CHECK(has(message_of<CheckpointError>([&] { checkpoint::read_run_identity(dir.path()); }),
            "remove it and the run takes metrics.jsonl for its own"));
}

TEST_CASE("retention counts and removes the checkpoints of its own run alone") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1});
  store.save(state_of({}, 0, 1), state_of_run(1, kAuto));
  store.save(state_of({}, 0, 1), state_of_run(1, kNever));
  store.save(state_of({}, 0, 2), state_of_run(2, kNever));
  CHECK(fs::exists(dir / "step-00000001"));          // of kAuto
  CHECK_FALSE(fs::exists(dir / "step-00000001.2"));  // of kNever
  CHECK(fs::exists(dir / "step-00000002"));
}

}  // namespace
}  // namespace tptrain::testing
