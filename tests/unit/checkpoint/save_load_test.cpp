// Saving and loading: bitwise round trips between all layouts, equal bytes of equal runs, what
// resume chooses, and the errors a user can meet.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <set>
#include <string>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/manifest.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointInfo;
using checkpoint::CheckpointReader;
using checkpoint::CheckpointStore;
using checkpoint::Depth;
using sharding::StateKind;

CheckpointInfo save_as(const fs::path& directory, GridShape grid, int64_t step) {
  CheckpointInfo saved;
  run_ranks(grid.ranks(), [&](comm::ControlGroup& group) {
    CheckpointStore store(group, {.directory = directory, .keep = 0});
    const CheckpointInfo info =
        store.save(state_of(grid, group.rank(), step), train_state_of(step, grid));
    if (group.rank() == 0) saved = info;
  });
  return saved;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

const std::vector<GridShape> kGrids{{1, 1}, {2, 2}, {4, 1}, {1, 4}, {3, 2}};

TEST_CASE("a checkpoint of any layout loads bitwise into any other") {
  for (const GridShape from : kGrids) {
    const TempDir dir;
    save_as(dir.path(), from, 3);
    for (const GridShape to : kGrids) {
      INFO("saved as tp " << from.tp << " dp " << from.dp << ", loaded as tp " << to.tp << " dp "
                          << to.dp);
      std::vector<int64_t> wrong(static_cast<size_t>(to.ranks()), -1);
      run_ranks(to.ranks(), [&](comm::ControlGroup& group) {
        CheckpointStore store(group, {.directory = dir.path()});
        sharding::StateDict state = empty_state(to, group.rank());
        store.load_into(state, *store.newest().info);
        wrong[static_cast<size_t>(group.rank())] = wrong_elements(state, 3);
      });
      CHECK(wrong == std::vector<int64_t>(static_cast<size_t>(to.ranks()), 0));
    }
  }
}

TEST_CASE("the train state comes back as it was, with its lineage") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir / "new" / "checkpoints", .keep = 0});
  CHECK(!store.newest().info);  // nothing there is no error: the run begins
  const CheckpointInfo first = store.save(state_of({}, 0, 1), train_state_of(1));
  const CheckpointInfo second = store.save(state_of({}, 0, 2), train_state_of(2));
  const auto found = store.newest();
  CHECK(found.refused.empty());
  REQUIRE(found.info);
  CHECK(found.info->path == dir / "new" / "checkpoints" / "step-00000002");
  CHECK(found.info->save_id == second.save_id);
  CHECK(found.info->parent_save_id == first.save_id);
  CHECK(first.parent_save_id.empty());
  CHECK(found.info->save_sequence == 2);
  const checkpoint::TrainState expected = train_state_of(2);
  const checkpoint::TrainState& state = found.info->state;
  CHECK(state.step == 2);
  CHECK(state.updates_done == 1);
  CHECK(state.tokens_seen == 8192);
  CHECK(state.model_json == expected.model_json);
  CHECK(state.config_hash == "c0ffee");
  CHECK(state.tokenizer_name == "bytes");
  CHECK(state.tokenizer_hash == "7e57");
  CHECK(state.data_identity == "d47a");
  CHECK(state.global_batch_size == 8);
  CHECK(state.zero_stage == 1);
}

TEST_CASE("a reader of one process gives slices of every kind, and says what it lacks") {
  const TempDir dir;
  const CheckpointInfo saved = save_as(dir.path(), {.tp = 2, .dp = 2}, 5);
  const CheckpointReader reader(saved.path);
  CHECK(reader.info().save_id == saved.save_id);
  REQUIRE(reader.tensors().size() == 3);
  CHECK(reader.tensors()[0].name == "model.embed_tokens.weight");
  CHECK(reader.tensors()[1].shape == std::vector<int64_t>{5, 13});

  const auto columns = sharding::slice_of("model.layers.0.mlp.down_proj.weight", {5, 13}, 1, 4, 9);
  at::Tensor out = at::zeros({25});
  reader.read_slice(columns, 0, 25, out);
  for (int64_t row = 0; row < 5; ++row) {
    for (int64_t column = 0; column < 5; ++column) {
      CHECK(out[row * 5 + column].item<float>() ==
            expected_value(sharding::kMaster, columns.name, row * 13 + 4 + column, 5));
    }
  }
  at::Tensor middle = at::zeros({3});
  reader.read_state("exp_avg_sq", sharding::whole_tensor("model.norm.weight", {7}), 2, 5, middle);
  CHECK(middle[0].item<float>() == expected_value("exp_avg_sq", "model.norm.weight", 2, 5));

  const auto refusal = [&](const sharding::ShardSpec& spec) {
    return message_of<CheckpointError>([&] { reader.read_slice(spec, 0, 3, middle); });
  };
  CHECK(has(refusal(sharding::whole_tensor("lm_head.weight", {7})),
            "the checkpoint has no tensor lm_head.weight"));
  CHECK(has(refusal(sharding::whole_tensor("model.norm.weight", {8})),
            "shape [7] in the checkpoint, [8] in the model"));
  at::Tensor wrong = at::zeros({3}, at::kDouble);
  CHECK_THROWS_AS(reader.read_slice(sharding::whole_tensor("model.norm.weight", {7}), 0, 3, wrong),
                  InternalError);
}

TEST_CASE("equal runs give equal shards, whatever the order of the pieces") {
  const TempDir dir;
  const GridShape grid{.tp = 2, .dp = 1};
  for (const char* run : {"a", "b"}) {
    run_ranks(2, [&](comm::ControlGroup& group) {
      CheckpointStore store(group, {.directory = dir / run});
      sharding::StateDict state = state_of(grid, group.rank(), 4);
      if (run[0] == 'b') std::reverse(state.pieces.begin(), state.pieces.end());
      store.save(state, train_state_of(4, grid));
    });
  }
  for (const char* shard :
       {"shard-00000-of-00002.safetensors", "shard-00001-of-00002.safetensors"}) {
    const std::string bytes = contents_of(dir / "a" / "step-00000004" / shard);
    CHECK(bytes.size() > 100);
    const bool equal = bytes == contents_of(dir / "b" / "step-00000004" / shard);
    CHECK(equal);
  }
  CHECK(names_in(dir / "a" / "step-00000004") ==
        std::vector<std::string>{"manifest.json", "shard-00000-of-00002.safetensors",
                                 "shard-00001-of-00002.safetensors"});
}

TEST_CASE("a rank with nothing to save writes an empty shard") {
  const TempDir dir;
  const std::vector<TensorPlan> tiny{{"w", {2}, -1}};
  const GridShape grid{.tp = 3, .dp = 1};  // tp ranks 1 and 2 hold copies only
  run_ranks(3, [&](comm::ControlGroup& group) {
    CheckpointStore store(group, {.directory = dir.path()});
    store.save(state_of(grid, group.rank(), 1, tiny), train_state_of(1, grid));
    sharding::StateDict state = empty_state(grid, group.rank(), tiny);
    store.load_into(state, *store.newest().info);
    if (wrong_elements(state, 1) != 0) throw std::runtime_error("wrong elements");
  });
  CHECK(checkpoint::verify(dir / "step-00000001", Depth::contents).problem.empty());
}

TEST_CASE("data in views with strides is saved element by element") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  const at::Tensor both = at::arange(8, at::kFloat).view({4, 2});
  sharding::StateDict state;
  state.pieces.push_back(
      {.spec = sharding::whole_tensor("w", {4}), .begin = 0, .end = 4, .data = both.select(1, 1)});
  const CheckpointInfo saved = store.save(state, train_state_of(1));
  both.zero_();
  store.load_into(state, saved);  // and loaded into one
  CHECK(both.view({8}).equal(at::tensor({0.f, 1.f, 0.f, 3.f, 0.f, 5.f, 0.f, 7.f})));
}

TEST_CASE("a second save of a step takes another name and wins") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path(), .keep = 0});
  store.save(state_of({}, 0, 7), train_state_of(7));
  store.save(state_of({}, 0, 8), train_state_of(8));
  // A branch begun at step 6 reaches step 7 again: later in time, though not in steps.
  const CheckpointInfo again = store.save(state_of({}, 0, 9), train_state_of(7));
  CHECK(again.path.filename() == "step-00000007.2");
  CHECK(names_in(dir.path()) ==
        std::vector<std::string>{"step-00000007", "step-00000007.2", "step-00000008"});
  CHECK(store.newest().info->save_id == again.save_id);
  // A new process goes on counting where the last one stopped.
  CheckpointStore next(group, {.directory = dir.path(), .keep = 0});
  CHECK(next.save(state_of({}, 0, 7), train_state_of(7)).save_sequence == 4);
  CHECK(fs::exists(dir / "step-00000007.3"));
}

TEST_CASE("a checkpoint is found by its contents, not by its name") {
  const TempDir dir;
  comm::SingleRank group;
  const CheckpointInfo saved = save_as(dir.path(), {}, 2);
  fs::rename(saved.path, dir / "best so far");
  fs::create_directory(dir / "notes");
  dir.put("readme.txt", "mine");
  CheckpointStore store(group, {.directory = dir.path(), .keep = 1});
  REQUIRE(store.newest().info);
  CHECK(store.newest().info->path == dir / "best so far");
  store.save(state_of({}, 0, 3), train_state_of(3));
  CHECK(fs::exists(dir / "best so far" / "manifest.json"));  // a name a user gave is kept for ever
}

TEST_CASE("another model is refused with the names and shapes that differ") {
  const TempDir dir;
  save_as(dir.path(), {.tp = 2, .dp = 1}, 1);
  std::vector<TensorPlan> other = small_model();
  other[0].shape = {12, 6};
  other[2].name = "model.layers.1.norm.weight";
  std::vector<std::string> messages;
  const auto thrown = ThreadGroup(2).run([&](comm::ControlGroup& group) {
    CheckpointStore store(group, {.directory = dir.path()});
    sharding::StateDict state = empty_state({.tp = 2, .dp = 1}, group.rank(), other);
    store.load_into(state, *store.newest().info);
  });
  for (const std::exception_ptr& exception : thrown) {
    REQUIRE(exception);
    try {
      std::rethrow_exception(exception);
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::checkpoint);
      CHECK(error.agreed());
      messages.emplace_back(error.what());
    }
  }
  REQUIRE(messages.size() == 2);
  CHECK(messages[0] == messages[1]);
  CHECK(has(messages[0], "the checkpoint is of another model"));
  CHECK(has(messages[0],
            "tensor model.embed_tokens.weight has shape [11, 6] in the checkpoint, [12, 6] in the "
            "model"));
  CHECK(has(messages[0], "the checkpoint has no tensor model.layers.1.norm.weight"));
  CHECK(has(messages[0], "the model has no tensor model.norm.weight"));
}

TEST_CASE("a state of which the checkpoint has no moments is refused") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  sharding::StateDict masters = state_of({}, 0, 1);
  std::erase_if(masters.pieces, [](const auto& piece) { return piece.kind != sharding::kMaster; });
  const CheckpointInfo saved = store.save(masters, train_state_of(1));
  sharding::StateDict all = empty_state({}, 0);
  CHECK(has(message_of<Error>([&] { store.load_into(all, saved); }),
            "the checkpoint has no exp_avg of tensor model.norm.weight"));
}

TEST_CASE("pieces that do not make up the model are refused before anything is written") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  sharding::StateDict gap = state_of({.tp = 2, .dp = 1}, 0, 1);  // the second half is missing
  CHECK(has(message_of<Error>([&] { store.save(gap, train_state_of(1)); }),
            "the ranks' pieces do not make up the model"));
  sharding::StateDict twice = state_of({}, 0, 1);
  twice.pieces.push_back(twice.pieces.front());
  CHECK(has(message_of<Error>([&] { store.save(twice, train_state_of(1)); }), "are saved twice"));
  sharding::StateDict short_data = state_of({}, 0, 1);
  short_data.pieces[0].data = at::zeros({2});
  CHECK(has(message_of<Error>([&] { store.save(short_data, train_state_of(1)); }),
            "is no 1-D fp32 or bf16 tensor of that many elements"));
  CHECK(names_in(dir.path()).empty());
}

TEST_CASE("a checkpoint that does not fit is refused before anything is written") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  sharding::StateDict state;
  const int64_t numel = int64_t{1} << 50;  // 4 PiB, of one element in memory
  state.pieces.push_back({.spec = sharding::whole_tensor("w", {numel}),
                          .begin = 0,
                          .end = numel,
                          .data = at::zeros({1}).expand({numel})});
  const std::string message = message_of<Error>([&] { store.save(state, train_state_of(1)); });
  CHECK(has(message, "a checkpoint needs 4"));
  CHECK(has(message, "are free"));
  CHECK(has(message, "lower checkpoint.keep"));
  CHECK(names_in(dir.path()).empty());
}

TEST_CASE("a text of the run's state that is not UTF-8 is refused by name") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  checkpoint::TrainState state = train_state_of(1);
  state.tokenizer_name = "caf\xe9";
  CHECK(has(message_of<Error>([&] { store.save(state_of({}, 0, 1), state); }), "not UTF-8"));
}

TEST_CASE("one failing rank fails the save on every rank alike, and leaves the last checkpoint") {
  const TempDir dir;
  const GridShape grid{.tp = 2, .dp = 2};
  const CheckpointInfo before = save_as(dir.path(), grid, 1);
  std::vector<std::string> messages;
  const auto thrown = ThreadGroup(4).run([&](comm::ControlGroup& group) {
    const auto disk_full = [&](std::string_view point) {
      if (group.rank() == 2 && point == "shard half written")
        throw CheckpointError(problem("write failed: No space left on device"));
    };
    CheckpointStore store(group, {.directory = dir.path(), .keep = 1, .fault_point = disk_full});
    store.save(state_of(grid, group.rank(), 2), train_state_of(2, grid));
  });
  for (const std::exception_ptr& exception : thrown) {
    REQUIRE(exception);
    try {
      std::rethrow_exception(exception);
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::checkpoint);
      messages.emplace_back(error.what());
    }
  }
  REQUIRE(messages.size() == 4);
  CHECK(std::set<std::string>(messages.begin(), messages.end()).size() == 1);
  CHECK(has(messages[0], "checkpoint error: [rank 2] write failed: No space left on device"));
  CHECK(names_in(dir.path()) == std::vector<std::string>{"step-00000001"});
  CHECK(checkpoint::verify(before.path, Depth::contents).problem.empty());
}

TEST_CASE("a file system that takes no more bytes is an error that names the shard") {
  const TempDir dir;
  comm::SingleRank group;
  CheckpointStore store(group, {.directory = dir.path()});
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);  // then write gives EFBIG
  rlimit unlimited{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &unlimited) == 0);
  rlimit limit = unlimited;
  limit.rlim_cur = 1000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  const std::string message =
      message_of<Error>([&] { store.save(state_of({}, 0, 1), train_state_of(1)); });
  ::setrlimit(RLIMIT_FSIZE, &unlimited);
  std::signal(SIGXFSZ, previous);
  CHECK(has(message, "checkpoint error: "));
  CHECK(has(message, "shard-00000-of-00001.safetensors: write failed: File too large"));
  CHECK(names_in(dir.path()).empty());
  store.save(state_of({}, 0, 1), train_state_of(1));  // the next save is not hindered
  CHECK(store.newest().info);
}

TEST_CASE("a rank whose shard rank 0 cannot see is named") {
  const TempDir dir;
  const auto thrown = ThreadGroup(2).run([&](comm::ControlGroup& group) {
    // As if rank 1 wrote to a disk of its own.
    const auto lose = [&](std::string_view point) {
      if (point != "shard written" || group.rank() != 1) return;
      for (const auto& entry : fs::recursive_directory_iterator(dir.path())) {
        if (entry.path().filename() == "shard-00001-of-00002.safetensors") fs::remove(entry.path());
      }
    };
    CheckpointStore store(group, {.directory = dir.path(), .fault_point = lose});
    store.save(state_of({.tp = 2}, group.rank(), 1), train_state_of(1));
  });
  REQUIRE(thrown[1]);
  const std::string message = message_of<Error>([&] { std::rethrow_exception(thrown[1]); });
  CHECK(has(message,
            "rank 1 wrote its shard, but rank 0 does not see it so: "
            "shard-00001-of-00002.safetensors is missing"));
  CHECK(has(message, "shared by all hosts"));
  CHECK(names_in(dir.path()).empty());
}

TEST_CASE("resume from a path: a checkpoint of another run, and what is none") {
  const TempDir dir;
  comm::SingleRank group;
  const CheckpointInfo other = save_as(dir / "other", {.tp = 2, .dp = 1}, 9);
  CheckpointStore store(group, {.directory = dir / "mine"});
  const CheckpointInfo opened = store.open(other.path);
  sharding::StateDict state = empty_state({}, 0);
  store.load_into(state, opened);
  CHECK(wrong_elements(state, 9) == 0);
  CHECK(store.save(state, train_state_of(10)).parent_save_id == other.save_id);

  const std::string message = message_of<CheckpointError>([&] { store.open(dir / "other"); });
  CHECK(has(message, "has no manifest.json"));
  CHECK(has(message, "be one whole checkpoint, such as run_dir/checkpoints/step-00000100"));
  CHECK(has(message_of<CheckpointError>([&] { store.open(dir / "nowhere"); }), "nowhere"));
}

TEST_CASE("a negative number of checkpoints to keep is refused") {
  const TempDir dir;
  comm::SingleRank group;
  CHECK(has(message_of<Error>(
                [&] { CheckpointStore store(group, {.directory = dir.path(), .keep = -1}); }),
            "checkpoint keep is -1"));
}

}  // namespace
}  // namespace tptrain::testing
