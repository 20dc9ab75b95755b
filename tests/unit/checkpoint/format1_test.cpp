// Checkpoints of format 1 are read for ever: of every ZeRO stage, written by the program that last
// wrote it (tests/golden/checkpoints, tp 2 x dp 2, three steps of a small model).
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/manifest.h"
#include "checkpoint/verify.h"
#include "support/catch.h"
#include "support/checkpoint_states.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::vector<std::string> kKinds = {"exp_avg", "exp_avg_sq", "master"};

fs::path stored(int stage) {
  return fs::path(TPTRAIN_GOLDEN_CHECKPOINTS) / cat("format1-zero", stage);
}

// Of all values of all tensors, by name and kind.
std::string hash_of_values(const fs::path& path) {
  const checkpoint::CheckpointReader reader(path);
  Sha256 hash;
  for (const sharding::TensorInfo& tensor : reader.tensors()) {
    const sharding::ShardSpec spec = sharding::whole_tensor(tensor.name, tensor.shape);
    for (const std::string& kind : kKinds) {
      at::Tensor values = at::empty({spec.local_numel()}, at::kFloat);
      reader.read_state(kind, spec, 0, spec.local_numel(), values);
      hash.update(values.data_ptr(), values.nbytes());
    }
  }
  return hash.hex();
}

// What a plain reading of these files in another language gives: safetensors' bytes, put together
// as the manifest says.
const std::string kValues = "2162d015ce73fb4c55ee1cc0f498b11a1b1c287f5f15948f0972d09095b79ed0";

// The state of one rank alone, of the tensors that the checkpoint holds.
sharding::StateDict state_for(const checkpoint::CheckpointReader& reader) {
  sharding::StateDict state;
  for (const sharding::TensorInfo& tensor : reader.tensors()) {
    for (const char* kind : {sharding::kMaster, "exp_avg", "exp_avg_sq"}) {
      const sharding::ShardSpec spec = sharding::whole_tensor(tensor.name, tensor.shape);
      state.pieces.push_back({.kind = kind,
                              .spec = spec,
                              .begin = 0,
                              .end = spec.local_numel(),
                              .save = true,
                              .data = at::zeros({spec.local_numel()}, at::kFloat)});
    }
  }
  return state;
}

TEST_CASE("checkpoints of format 1 verify and hold the values they were written with") {
  for (const int stage : {0, 1, 2, 3}) {
    INFO("ZeRO-" << stage);
    const checkpoint::Verdict verdict =
        checkpoint::verify(stored(stage), checkpoint::Depth::contents);
    CHECK(verdict.problem == "");
    REQUIRE(verdict.info);
    CHECK(verdict.info->state.step == 3);
    CHECK(verdict.info->state.zero_stage == stage);
    CHECK(verdict.info->state.run.id == "");
    CHECK(checkpoint::read_manifest(stored(stage)).format_version == 1);
    CHECK(hash_of_values(stored(stage)) == kValues);
  }
}

TEST_CASE("a run goes on from format 1 and writes format 2 with the same values") {
  const TempDir dir;
  fs::copy(stored(2), dir / "step-00000003", fs::copy_options::recursive);
  comm::SingleRank group;
  checkpoint::CheckpointStore store(group, {.directory = dir.path(), .keep = 0});
  const auto found = store.newest().info;
  REQUIRE(found);
  sharding::StateDict state = state_for(checkpoint::CheckpointReader(found->path));
  store.load_into(state, *found);
  checkpoint::TrainState next = found->state;
  next.step = 4;
  const checkpoint::CheckpointInfo saved = store.save(state, next);
  CHECK(saved.parent_save_id == found->save_id);
  CHECK(checkpoint::read_manifest(saved.path).format_version == 2);
  CHECK(hash_of_values(saved.path) == kValues);
}

TEST_CASE("a manifest of format 1 whose keys contradict its kinds is refused") {
  const TempDir dir;
  fs::copy(stored(1), dir / "c", fs::copy_options::recursive);
  const Json manifest = Json::parse(read_file(dir / "c/manifest.json"));
  const auto problem_with = [&](const auto& change) {
    Json changed = manifest;
    change(changed["pieces"]);
    changed.erase("self_hash");
    changed["self_hash"] = sha256_hex(changed.dump());
    dir.put("c/manifest.json", changed.dump() + "\n");
    return checkpoint::verify(dir / "c", checkpoint::Depth::manifest).problem;
  };
  CHECK(problem_with([](Json&) {}) == "");
  // Masters and moments exchanged.
  CHECK(has(problem_with([](Json& pieces) {
              for (Json& piece : pieces) {
                if (piece["file"] != 0 || piece["kind"] == "exp_avg_sq") continue;
                piece["kind"] = piece["kind"] == "master" ? "exp_avg" : "master";
              }
            }),
            "which is of something else"));
  for (const char* key : {"master/v#0", "master", "master/model.embed_tokens.weight#",
                          "master/model.embed_tokens.weight#0x"}) {
    CHECK(has(problem_with([&](Json& pieces) { pieces[0]["key"] = key; }),
              "which is of something else"));
  }
}

}  // namespace
}  // namespace tptrain::testing
