// tptrain inspect and verify on real checkpoints, whole and damaged: what they print and return.
#include <ATen/Functions.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "commands/commands.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using sharding::StateKind;

constexpr const char* kModel =
    R"({"model_type":"llama","vocab_size":272,"hidden_size":64,"intermediate_size":128,)"
    R"("num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"rope_theta":500000.0})";

// A run directory with checkpoints of steps 10, 20, ..., written by one rank; removed at the end.
class RunDirectory {
 public:
  explicit RunDirectory(int saves) {
    std::string name = (fs::temp_directory_path() / "tptrain-tools-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    comm::SingleRank group;
    checkpoint::CheckpointStore store(group, {.directory = path / "checkpoints", .keep = 0});
    for (int save = 1; save <= saves; ++save) {
      checkpoint::TrainState state;
      state.step = 10 * save;
      state.updates_done = 10 * save;
      state.tokens_seen = 12345 * save;
      state.model_json = kModel;
      state.config_hash = "c0ffee";
      state.tokenizer_name = "bytes";
      state.tokenizer_hash = "7e57";
      state.data_identity = "d474";
      state.global_batch_size = 8;
      saved.push_back(store.save(state_dict(save), state).path);
    }
  }
  ~RunDirectory() { fs::remove_all(path); }

  fs::path path;
  std::vector<fs::path> saved;

 private:
  // A matrix in two tp slices along dim 0, and a norm.
  static sharding::StateDict state_dict(int value) {
    sharding::StateDict dict;
    for (const StateKind kind : {sharding::kMaster, "exp_avg", "exp_avg_sq"}) {
      const auto full = [&](int64_t count) { return at::full({count}, double(value)); };
      dict.pieces.push_back({.kind = kind,
                             .spec = sharding::slice_of("a.weight", {4, 3}, 0, 0, 2),
                             .begin = 0,
                             .end = 6,
                             .data = full(6)});
      dict.pieces.push_back({.kind = kind,
                             .spec = sharding::slice_of("a.weight", {4, 3}, 0, 2, 4),
                             .begin = 0,
                             .end = 6,
                             .data = full(6)});
      dict.pieces.push_back({.kind = kind,
                             .spec = sharding::whole_tensor("norm.weight", {5}),
                             .begin = 0,
                             .end = 5,
                             .data = full(5)});
    }
    return dict;
  }
};

struct Output {
  int code = 0;
  std::string text;
};

template <typename Work>
Output captured(Work&& work) {
  std::ostringstream out;
  std::streambuf* const before = std::cout.rdbuf(out.rdbuf());
  try {
    const int code = work();
    std::cout.rdbuf(before);
    return {code, out.str()};
  } catch (...) {
    std::cout.rdbuf(before);
    throw;
  }
}

Output verify(const fs::path& path) {
  return captured([&] { return apps::run_verify({.path = path.string()}); });
}
Output inspect(const fs::path& path) {
  return captured([&] { return apps::run_inspect({.path = path.string()}); });
}

template <typename Work>
std::string refusal(Work&& work) {
  try {
    work();
  } catch (const CheckpointError& e) {
    CHECK(e.code() == ExitCode::checkpoint);
    return e.what();
  }
  FAIL("not refused");
  return "";
}

void check_contains(const std::string& text, const std::string& part) {
  INFO(text);
  INFO("lacks: " << part);
  CHECK(text.find(part) != std::string::npos);
}

fs::path shard_of(const fs::path& checkpoint) {
  return checkpoint / "shard-00000-of-00001.safetensors";
}

void flip_last_byte(const fs::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(-1, std::ios::end);
  const char byte = static_cast<char>(stream.get() ^ 1);
  stream.seekp(-1, std::ios::end);
  stream.put(byte);
}

TEST_CASE("verify accepts a checkpoint, a directory of them and a run directory") {
  const RunDirectory run(2);
  const Output one = verify(run.saved[0]);
  CHECK(one.code == 0);
  CHECK(one.text == "OK   " + run.saved[0].string() + ": step 10, save 1, 12,345 tokens seen\n");
  const std::string both = "OK   " + run.saved[1].string() +
                           ": step 20, save 2, 24,690 tokens seen\n" + one.text +
                           "2 valid, 0 not\n";
  for (const fs::path& path : {run.path, run.path / "checkpoints"}) {
    CHECK(verify(path).code == 0);
    CHECK(verify(path).text == both);
  }
}

TEST_CASE("verify says what is wrong with a damaged checkpoint and returns 4") {
  const RunDirectory run(2);
  flip_last_byte(shard_of(run.saved[1]));
  const Output output = verify(run.path);
  CHECK(output.code == 4);
  check_contains(output.text, "OK   " + run.saved[0].string());
  check_contains(output.text, "BAD  " + run.saved[1].string() + ": ");
  check_contains(output.text, "shard-00000-of-00001.safetensors");
  check_contains(output.text, "1 valid, 1 not\n");
  CHECK(verify(run.saved[1]).code == 4);
}

TEST_CASE("verify: a checkpoint that lost its manifest is bad, not absent") {
  const RunDirectory run(1);
  fs::remove(run.saved[0] / "manifest.json");
  CHECK(verify(run.saved[0]).code == 4);
  check_contains(verify(run.saved[0]).text, "BAD  " + run.saved[0].string() + ": ");
}

TEST_CASE("inspect shows the manifest's facts and every tensor") {
  const RunDirectory run(2);
  const std::string text = inspect(run.path).text;
  for (const char* part :
       {"step-00000020", "20 (20 updates, 24,690 tokens seen)", "number 2, id ",
        "tp 1 x dp 1, ZeRO-0, global batch of 8 sequences",
        "model        llama, 108,864 parameters\n",
        "layers       2 of width 64, feed-forward 128 (SwiGLU), RMSNorm\n",
        "attention    4 heads of 16 on 2 of keys and values\n",
        "vocabulary   272, with a head of its own\n",
        "positions    no bound said, rotary, theta 500000\n", "bytes, hash 7e57", "d474", "c0ffee",
        "2, 17 elements",
        "tensor       shape   cut over tp  master pieces  exp_avg pieces  exp_avg_sq pieces\n",
        "a.weight     [4, 3]  dim 0        2              2               2\n",
        "norm.weight  [5]     no           1              1               1\n",
        "The newest of 2; tptrain verify lists all."}) {
    check_contains(text, part);
  }
  CHECK(text.find("{") == std::string::npos);
  const auto json = nlohmann::json::parse(
      captured([&] { return apps::run_inspect({.path = run.path.string(), .json = true}); }).text);
  CHECK(json["step"] == 20);
  CHECK(json["model"] == nlohmann::json::parse(kModel));
  CHECK(json["tensors"][0] ==
        nlohmann::json::parse(R"({"name": "a.weight", "shape": [4, 3], "cut_dim": 0,
                                  "pieces": {"master": 2, "exp_avg": 2, "exp_avg_sq": 2}})"));
  CHECK(json["shards"][0]["name"] == "shard-00000-of-00001.safetensors");
  const Output older = inspect(run.saved[0]);
  CHECK(older.code == 0);
  check_contains(older.text, "step-00000010");
  CHECK(older.text.find("The newest of") == std::string::npos);
}

TEST_CASE("inspect refuses a checkpoint without a valid manifest") {
  const RunDirectory run(1);
  flip_last_byte(run.saved[0] / "manifest.json");
  const std::string message = refusal([&] { inspect(run.saved[0]); });
  check_contains(message, "checkpoint error: " + run.saved[0].string() + ": ");
  check_contains(message, "tptrain verify " + run.saved[0].string() + " looks at all of it.");
}

TEST_CASE("a path without a checkpoint is refused") {
  const RunDirectory run(0);
  const fs::path missing = run.path / "nowhere";
  CHECK(refusal([&] { verify(missing); }) ==
        "checkpoint error: " + missing.string() +
            ": there is no such directory.\n  Give the path of a checkpoint, of a directory of "
            "checkpoints, or of a run.");
  CHECK(refusal([&] { verify(run.path); }) ==
        "checkpoint error: " + (run.path / "checkpoints").string() +
            ": no checkpoint is in this directory.\n  A run writes them to run_dir/checkpoints; "
            "checkpoint.save_steps says how often.");
  const fs::path file = run.path / "file";
  std::ofstream(file) << "x";
  CHECK(refusal([&] { inspect(file); }) ==
        "checkpoint error: " + file.string() +
            ": this is no directory: it must be a checkpoint, a directory of checkpoints, or a run "
            "directory.");
}

}  // namespace
}  // namespace tptrain::testing
