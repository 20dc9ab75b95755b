// tptrain generate on a trained checkpoint: the text, the ways to name a checkpoint, what a damaged
// one does, and every refusal.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../train/training_job.h"
#include "base/files.h"
#include "checkpoint/manifest.h"
#include "checkpoint/verify.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using Arguments = std::vector<std::string>;

Arguments generate(const std::string& checkpoint, const Arguments& more = {}) {
  Arguments arguments = {"generate",  "--checkpoint",     checkpoint, "--prompt",
                         "Sentence ", "--max-new-tokens", "12"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// The text; what the program says about itself goes to standard error.
std::string text_of(const ProcessResult& result) {
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  REQUIRE(result.standard_output.rfind("Sentence ", 0) == 0);
  return result.standard_output;
}

void check_refused(const ProcessResult& result, int exit_code, const std::string& message) {
  INFO(result.output);
  INFO("expected: " << message);
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.find(message) != std::string::npos);
}

const Job& trained() {
  static const Job job;
  static const ProcessResult result = job.run();
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return job;
}

/// A job with a copy of that run, to be damaged: training takes the most time here.
struct CopiedJob : Job {
  CopiedJob() { fs::copy(trained().run_dir(), run_dir(), fs::copy_options::recursive); }
};

void damage(const fs::path& checkpoint) {
  const fs::path shard = checkpoint / "shard-00000-of-00004.safetensors";
  std::string bytes = read_text(shard);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_text(shard, bytes);
}

}  // namespace

TEST_CASE("the text is the same by itself and on two ranks, from any name of the checkpoint",
          "[e2e]") {
  const Job& job = trained();
  const std::string newest = checkpoint_at(job.run_dir(), 8).string();
  const std::string text = text_of(job.tool(generate("run")));
  CHECK(text.size() > std::string("Sentence ").size());
  CHECK(text_of(job.tool(generate("run/checkpoints"))) == text);
  CHECK(text_of(job.tool(generate(newest))) == text);
  CHECK(text_of(run_process(job.command(2, generate("run")), job.directory())) == text);
}

TEST_CASE("a seed decides a sampled text", "[e2e]") {
  const Job& job = trained();
  const auto sample = [&](const std::string& seed) {
    return text_of(job.tool(generate(
        "run", {"--temperature", "1", "--top-k", "50", "--top-p", "0.9", "--seed", seed})));
  };
  const std::string text = sample("7");
  CHECK(sample("7") == text);
  CHECK(sample("8") != text);
}

TEST_CASE("a damaged newest checkpoint is passed over aloud, and refused by name", "[e2e]") {
  const CopiedJob job;
  const fs::path newest = checkpoint_at(job.run_dir(), 8);
  damage(newest);
  const ProcessResult result = job.tool(generate("run"));
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(result.output.find("not used: ") != std::string::npos);
  CHECK(result.output.find("SHA-256") != std::string::npos);
  CHECK(result.output.find("step 6:") != std::string::npos);
  check_refused(job.tool(generate(newest.string())), 4, "checkpoint error: ");
  for (const fs::directory_entry& entry : fs::directory_iterator(job.run_dir() / "checkpoints")) {
    if (entry.path() != newest) damage(entry.path());
  }
  check_refused(job.tool(generate("run")), 4, "SHA-256");
}

TEST_CASE("a checkpoint of another tokenizer is refused", "[e2e]") {
  const CopiedJob job;
  const fs::path newest = checkpoint_at(job.run_dir(), 8);
  checkpoint::Manifest manifest = checkpoint::read_manifest(newest);
  const std::string hash = manifest.state.tokenizer_hash;
  manifest.state.tokenizer_hash = "0123";
  write_text(newest / "manifest.json", checkpoint::manifest_text(manifest));
  check_refused(
      job.tool(generate(newest.string())), 4,
      "tokenizer 'bytes' has the hash " + hash +
          ", the manifest says 0123: it must be the tokenizer that the model was trained with.\n"
          "  Put the files of that tokenizer back: with another one the ids mean other text.");
}

TEST_CASE("a Hugging Face directory generates, and so does a run begun with it when it has moved",
          "[e2e]") {
  Job job;
  fs::copy(fs::path(TPTRAIN_SOURCE_DIR) / "tests/golden/models/llama3_scaling",
           job.directory() / "model");
  const Arguments from_model = {"generate", "--model",  "model",     "--tokenizer",
                                "bytes",    "--prompt", "Sentence ", "--max-new-tokens",
                                "12"};
  const std::string text = text_of(job.tool(from_model));
  CHECK(text_of(run_process(job.command(4, from_model), job.directory())) == text);

  // A learning rate of next to nothing: the run's model is the directory's.
  job.edit(
      "architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: "
      "64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}",
      "path: model");
  job.edit("  eval: [text/eval.txt]", "  tokenizer: bytes");
  job.edit("eval: {every_steps: 4}", "");
  job.edit("learning_rate: 3e-3", "learning_rate: 1e-30");
  const ProcessResult run = job.run();
  INFO(run.output);
  REQUIRE(run.exit_code == 0);
  CHECK(has(run.output, "start: the weights of model (F32)"));
  CHECK(read_text(job.run_dir() / "model_files/config.json") ==
        read_text(job.directory() / "model/config.json"));
  fs::rename(job.directory() / "model", job.directory() / "elsewhere");
  CHECK(text_of(job.tool(generate("run"))) == text);
  // Nothing of the weights is needed to go on, but the shape is.
  fs::rename(job.directory() / "elsewhere", job.directory() / "model");
  fs::remove(job.directory() / "model/model.safetensors");
  const ProcessResult more = job.run(4, {"--set", "train.max_steps=9"});
  INFO(more.output);
  CHECK(more.exit_code == 0);
  const ProcessResult anew = job.run(4, {"--set", "run_dir=other"});
  check_refused(anew, 3, "model");
}

TEST_CASE("generation stops at the ids that generation_config.json names", "[e2e]") {
  const Job job;
  fs::copy(fs::path(TPTRAIN_SOURCE_DIR) / "tests/golden/models/qwen2", job.directory() / "model");
  const auto tokens_of = [&] {
    const ProcessResult result = job.tool({"generate", "--model", "model", "--tokenizer", "bytes",
                                           "--prompt", "Sentence ", "--max-new-tokens", "12"});
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return result.output.substr(result.standard_output.size());
  };
  CHECK(has(tokens_of(), "9 + 12 tokens"));
  nlohmann::json all = nlohmann::json::array();
  for (int id = 0; id < 263; ++id) all.push_back(id);
  write_text(job.directory() / "model/generation_config.json",
             nlohmann::json{{"eos_token_id", all}}.dump());
  CHECK(has(tokens_of(), "9 + 0 tokens"));
  write_text(job.directory() / "model/generation_config.json", R"({"eos_token_id": 263})");
  check_refused(job.tool({"generate", "--model", "model", "--tokenizer", "bytes", "--prompt", "a"}),
                3,
                "generation_config.json: eos_token_id holds 263: it must be ids below vocab_size");
}

TEST_CASE("what generate cannot do is refused", "[e2e]") {
  const Job& job = trained();
  check_refused(job.tool(generate("nowhere")), 4,
                "checkpoint error: nowhere: there is no such directory");
  check_refused(job.tool(generate("run", {"--top-k", "5"})), 2,
                "top_k or top_p is given with temperature 0");
  check_refused(
      run_process(job.command(3, generate("run")), job.directory()), 2,
      "there are 3 ranks, and generate cuts the model over all of them: it must be a tp size that "
      "divides "
      "the model.\n  tp sizes that work for this model: 1, 2, 4. Start that many ranks.");
  fs::copy(fs::path(TPTRAIN_SOURCE_DIR) / "tests/golden/models/gpt2", job.directory() / "gpt2");
  check_refused(
      job.tool({"generate", "--model", "gpt2", "--tokenizer", "bytes", "--prompt", "abc",
                "--max-new-tokens", "38"}),
      2,
      "the prompt with --max-new-tokens is 41, and the model's max_position_embeddings is "
      "40: it must be at most that");
  check_refused(job.tool({"generate", "--model", "gpt2", "--prompt", "abc"}), 2, "tokenizer");
#ifndef TPTRAIN_CUDA
  check_refused(job.tool(generate("run", {"--device", "cuda"})), 2,
                "--device is cuda, but this build of tptrain or this host has no CUDA.\n"
                "  Use --device cpu or auto, or a build of the cuda preset.");
#endif
}

}  // namespace tptrain::testing
