// A training of adapters through the binary: its checkpoints hold them alone, it goes on bit by
// bit, on another layout and beside a base that has moved, and not beside another base.
#include <nlohmann/json.hpp>

#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

/// Gives the job a model from the directory base/; another one of its shape lies in other/.
void put_beside_a_base(Job& job) {
  REQUIRE(job.run(2, {"--set", "run_dir=before", "--set", "train.max_steps=4", "--set",
                      "parallel.tp_size=1"})
              .exit_code == 0);
  for (const auto& [step, directory] : {std::pair{4, "base"}, std::pair{3, "other"}}) {
    const ProcessResult exported =
        job.tool({"export", "--checkpoint", checkpoint_at(job.directory() / "before", step),
                  "--out", directory});
    INFO(exported.output);
    REQUIRE(exported.exit_code == 0);
  }
  const std::string text = read_text(job.config());
  const size_t begin = text.find("model:"), end = text.find("parallel:");
  write_text(job.config(), text.substr(0, begin) +
                               "model: {path: base}\nadapter: {rank: 4, alpha: 16}\n" +
                               text.substr(end));
  job.edit("data:", "data:\n  tokenizer: bytes");
}

bool has(const ProcessResult& result, const std::string& part) {
  UNSCOPED_INFO(result.output);
  return result.output.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("adapters: resume bit by bit, on another layout, beside the same base alone", "[e2e]") {
  Job job;
  put_beside_a_base(job);
  const ProcessResult whole = job.run(4, {"--set", "run_dir=whole"});
  INFO(whole.output);
  REQUIRE(whole.exit_code == 0);
  CHECK(has(whole, "adapter: lora of rank 4, scaled by 4, on all-linear; 4,096 parameters train"));
  CHECK(has(whole, "start: a new adapter beside the weights of base"));
  REQUIRE(job.run(4, {"--set", "train.max_steps=3"}).exit_code == 0);
  const ProcessResult resumed = job.run(4);
  INFO(resumed.output);
  REQUIRE(resumed.exit_code == 0);
  const fs::path last = checkpoint_at(job.run_dir(), 8);
  CHECK(shards_of(last) == shards_of(checkpoint_at(job.directory() / "whole", 8)));
  CHECK(metric_lines(job.run_dir()) == metric_lines(job.directory() / "whole"));

  size_t bytes = 0;
  for (const auto& [name, shard] : shards_of(last)) {
    bytes += shard.size();
    CHECK(shard.find("q_proj.lora_A.weight") + shard.find("mlp.down_proj.lora_B.weight") > 0);
    CHECK(shard.find("q_proj.weight") == std::string::npos);
  }
  CHECK(bytes > size_t{3 * 4 * 4096});
  CHECK(bytes < size_t{3 * 4 * 4096 + 100'000});
  const nlohmann::json manifest = nlohmann::json::parse(read_text(last / "manifest.json"));
  INFO(manifest.dump());
  CHECK(manifest.dump().find("base") != std::string::npos);

  const auto with = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"--set", "train.max_steps=10"});
    return more;
  };
  const ProcessResult changed = job.run(4, with({"--set", "model.path=other"}));
  CHECK(changed.exit_code == 4);
  CHECK(has(changed, "the adapter was trained beside another base model (base then, other now)"));
  CHECK(has(changed, "then: model.safetensors, "));
  CHECK(has(changed, "now : model.safetensors, "));
  const ProcessResult rank = job.run(4, with({"--set", "adapter.rank=8"}));
  CHECK(rank.exit_code == 4);
  CHECK(has(rank, "the checkpoint is of another adapter (rank 4 -> 8)"));

  fs::rename(job.directory() / "base", job.directory() / "moved");
  CHECK(job.run(4, with({})).exit_code == 2);
  const ProcessResult moved =
      job.run(2, with({"--set", "model.path=moved", "--set", "parallel.tp_size=1", "--set",
                       "parallel.zero_stage=3"}));
  INFO(moved.output);
  CHECK(moved.exit_code == 0);
  CHECK(metric_lines(job.run_dir()).size() == 10);
}

TEST_CASE("adapters: what a section asks for in vain is refused by name", "[e2e]") {
  const Job job;
  const auto refused = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> arguments;
    for (const std::string& setting : settings) {
      arguments.push_back("--set");
      arguments.push_back(setting);
    }
    const ProcessResult result = job.run(4, arguments);
    CHECK(result.exit_code == 2);
    return result;
  };
  CHECK(has(refused({"adapter.targets=[qkv]"}),
            "adapter.targets[0] is qkv, which no module of a llama model is called: it must be one "
            "of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."));
  CHECK(has(refused({"adapter.rank=4", "optimizer.type=muon"}),
            "optimizer.type is muon beside an adapter"));
  CHECK(has(refused({"adapter.targets=all"}), "must be all-linear or a list of texts"));
  CHECK(has(refused({"adapter.rank=4", "model.freeze=[\"*lora*\"]"}),
            "model.freeze fits every tensor that an adapter's run trains"));
}

}  // namespace tptrain::testing
