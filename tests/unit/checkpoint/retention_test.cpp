// What is removed after a save, and what never is.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/find_checkpoints.h"
#include "checkpoint/named_checkpoints.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointStore;

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.insert(entry.path().filename().string());
  return names;
}

void save(CheckpointStore& store, int64_t step) {
  store.save(state_of({}, 0, step), train_state_of(step));
}

TEST_CASE("the newest `keep` checkpoints stay, by order of saving") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 2});
  for (const int64_t step : {30, 40, 10}) save(store, step);
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000040", "step-00000010"});
  save(store, 20);
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000010", "step-00000020"});
  CHECK(store.retention_problems().empty());
}

TEST_CASE("keep 1 leaves the one just written, keep 0 all") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore all(group, {.directory = dir.path(), .keep = 0});
  for (const int64_t step : {1, 2, 3}) save(all, step);
  CHECK(names_in(dir.path()).size() == 3);
  CheckpointStore one(group, {.directory = dir.path(), .keep = 1});
  save(one, 4);
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000004"});
}

TEST_CASE("what is due every so many steps stays beside the newest, for ever") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 2, .keep_every = 20});
  for (const int64_t step : {10, 20, 30, 40, 50, 60, 70}) save(store, step);
  CHECK(names_in(dir.path()) ==
        std::set<std::string>{"step-00000020", "step-00000040", "step-00000060", "step-00000070"});
  // Saved again by a run that began at an earlier step: the later one stands for the step.
  save(store, 40);
  save(store, 80);
  save(store, 90);
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000020", "step-00000040.2",
                                                      "step-00000060", "step-00000080",
                                                      "step-00000090"});
}

TEST_CASE("the best one stays until there is a better one, and has a name") {
  const TempDir dir;
  comm::SingleRank group;
  const fs::path directory = dir / "checkpoints";
  CheckpointStore store(group, {.directory = directory, .keep = 1, .keep_best = true});
  const std::string best = (dir / "best").string(), last = (dir / "last").string();
  const auto found = [](const std::string& path) {
    return checkpoint::find_checkpoints(path, checkpoint::Depth::contents).front().info->state.step;
  };
  save(store, 10);
  CHECK(has(message_of<CheckpointError>([&] { found(best); }), "checkpoint.keep_best"));
  checkpoint::add_best(directory, "", {.step = 10, .loss = 2.5});
  for (const int64_t step : {20, 30}) save(store, step);
  CHECK(names_in(directory) ==
        std::set<std::string>{"best.json", "step-00000010", "step-00000030"});
  CHECK(found(best) == 10);
  CHECK(found(last) == 30);
  CHECK(found((directory / "best").string()) == 10);
  // One whose save failed: the best before it stays.
  checkpoint::add_best(directory, "", {.step = 25, .loss = 2.2});
  CHECK(found(best) == 10);
  checkpoint::add_best(directory, "", {.step = 30, .loss = 2.0});
  save(store, 40);
  CHECK(names_in(directory) ==
        std::set<std::string>{"best.json", "step-00000030", "step-00000040"});
  // Of another run: it is not this one's to keep.
  checkpoint::add_best(directory, "another", {.step = 40, .loss = 1.0});
  save(store, 50);
  CHECK(names_in(directory) == std::set<std::string>{"best.json", "step-00000050"});
  CHECK(has(message_of<CheckpointError>([&] { found(best); }), "not here any more"));
}

TEST_CASE("where the best cannot be told nothing is removed") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1, .keep_best = true});
  dir.put("best.json", "{\"step\": 1");
  for (const int64_t step : {10, 20}) save(store, step);
  REQUIRE(store.retention_problems().size() == 1);
  CHECK(has(store.retention_problems()[0], "best.json"));
  CHECK(names_in(dir.path()).size() == 3);
}

TEST_CASE("a state that is not finite is not committed, and pushes nothing out") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1});
  save(store, 1);
  for (const double bad :
       {std::nan(""), static_cast<double>(INFINITY), static_cast<double>(-INFINITY)}) {
    sharding::StateDict state = state_of({}, 0, 2);
    state.pieces[1].data[3] = bad;
    try {
      store.save(state, train_state_of(2));
      FAIL("it is committed");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::non_finite);
      CHECK(has(error.what(), "the exp_avg of tensor model.embed_tokens.weight"));
    }
    CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000001"});
  }
  save(store, 3);
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000003"});
}

TEST_CASE("a damaged checkpoint neither counts nor is removed") {
  const TempDir dir;
  comm::SingleRank group;
  {
    CheckpointStore store(group, {.directory = dir.path(), .keep = 0});
    for (const int64_t step : {1, 2, 3}) save(store, step);
  }
  const std::string shard = "shard-00000-of-00001.safetensors";
  fs::resize_file(dir / "step-00000002" / shard, 100);
  {
    std::fstream file(dir / "step-00000003" / shard,
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('!');
  }
  CheckpointStore store(group, {.directory = dir.path(), .keep = 2});
  CHECK(store.newest().info->state.step == 1);  // finds that 3 is damaged
  save(store, 4);
  // Step 1 is the only other whole one: were 2 or 3 counted, it would be gone.
  CHECK(names_in(dir.path()) ==
        std::set<std::string>{"step-00000001", "step-00000002", "step-00000003", "step-00000004"});
}

TEST_CASE("the rest of a deletion that was cut short goes with the next save, foreign files stay") {
  const TempDir dir;
  comm::SingleRank group;
  dir.put("step-00000001/shard-00000-of-00002.safetensors", "x");
  dir.put("step-00000002/shard-00000-of-00002.safetensors", "x");
  dir.put("step-00000002/notes.txt", "mine");
  dir.put("other/shard-00000-of-00002.safetensors", "x");
  fs::create_directory(dir / "step-00000003");
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1});
  save(store, 4);
  CHECK(names_in(dir.path()) == std::set<std::string>{"step-00000002", "other", "step-00000004"});
  CHECK(fs::exists(dir / "step-00000002" / "shard-00000-of-00002.safetensors"));
}

TEST_CASE("a checkpoint with a user's file in it loses its shards and says so") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1});
  save(store, 1);
  dir.put("step-00000001/notes.txt", "the one with the good loss");
  save(store, 2);
  CHECK(names_in(dir / "step-00000001") == std::set<std::string>{"notes.txt"});
  REQUIRE(store.retention_problems().size() == 1);
  CHECK(has(
      store.retention_problems()[0],
      "step-00000001: its shards are removed, but files that are not of the checkpoint remain"));
  save(store, 3);
  CHECK(store.retention_problems().empty());  // said once
  CHECK(store.newest().refused.empty());      // notes alone are no checkpoint that could be refused
}

TEST_CASE("links to checkpoints are followed by resume, not by retention") {
  const TempDir dir;
  comm::SingleRank group;
  {
    CheckpointStore elsewhere(group, {.directory = dir / "elsewhere"});
    save(elsewhere, 1);
  }
  fs::create_directory(dir / "checkpoints");
  fs::create_directory_symlink(dir / "elsewhere" / "step-00000001",
                               dir / "checkpoints" / "step-00000001");
  CheckpointStore store(group, {.directory = dir / "checkpoints", .keep = 1});
  CHECK(store.newest().info->state.step == 1);
  save(store, 2);
  CHECK(fs::exists(dir / "elsewhere" / "step-00000001" / "manifest.json"));
}

}  // namespace
}  // namespace tptrain::testing
