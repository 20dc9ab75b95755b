// tptrain export and inspect by the program itself: a trained checkpoint becomes a Hugging Face
// directory with the same values, which inspect accepts; and every refusal has its exit code.
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "../train/training_job.h"
#include "base/files.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/huggingface_source.h"
#include "model/decoder_config.h"
#include "model/families/family.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using Arguments = std::vector<std::string>;
using Json = nlohmann::json;

const Job& trained() {
  static const Job job;
  static const ProcessResult result = job.run();
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return job;
}

ProcessResult exported(const std::string& out, const Arguments& more = {}) {
  Arguments arguments = {"export", "--checkpoint", "run", "--out", out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return trained().tool(arguments);
}

void check_done(const ProcessResult& result) {
  INFO(result.output);
  CHECK(result.exit_code == 0);
}

void check_refused(const ProcessResult& result, int exit_code, const std::string& message) {
  INFO(result.output);
  INFO("expected: " << message);
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.find(message) != std::string::npos);
}

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

Json config_of(const fs::path& directory) {
  return Json::parse(read_text(directory / "config.json"));
}

/// The largest difference of any value of the newest checkpoint and the export.
double largest_difference(const fs::path& out) {
  const checkpoint::CheckpointReader reader(checkpoint_at(trained().run_dir(), 8));
  const auto config =
      model::decoder_config_from_json(read_text(out / "config.json"), "config.json");
  const checkpoint::HuggingFaceSource source(out, model::stored_model(config));
  double largest = 0;
  for (const sharding::TensorInfo& info : reader.tensors()) {
    const sharding::ShardSpec spec = sharding::whole_tensor(info.name, info.shape);
    at::Tensor a = at::empty({spec.local_numel()}, at::kFloat);
    at::Tensor b = at::empty_like(a);
    reader.read_slice(spec, 0, a.numel(), a);
    source.read_slice(spec, 0, a.numel(), b);
    largest = std::max(largest, (a - b).abs().max().item<double>());
  }
  return largest;
}

TEST_CASE("a checkpoint is exported with its values, and inspect accepts it", "[e2e]") {
  const fs::path directory = trained().directory();
  const ProcessResult result = exported("f32");
  check_done(result);
  CHECK(result.output.find("written: model.safetensors, ") != std::string::npos);
  CHECK(result.output.find("(step 8) to f32: ") != std::string::npos);
  CHECK(names_in(directory / "f32") ==
        std::set<std::string>{"config.json", "generation_config.json", "model.safetensors",
                              "tokenizer.json", "tokenizer_config.json"});
  CHECK(largest_difference(directory / "f32") == 0);
  // What transformers would otherwise take from Llama's defaults: end of text 2, 2,048 positions.
  const Json config = config_of(directory / "f32");
  CHECK(config.at("model_type") == "llama");
  CHECK(config.at("eos_token_id") == 256);
  CHECK(config.at("bos_token_id").is_null());
  CHECK(config.at("max_position_embeddings") == 32);
  CHECK(Json::parse(read_text(directory / "f32/generation_config.json")) ==
        Json{{"eos_token_id", 256}});
  const ProcessResult answer =
      trained().tool({"generate", "--model", "f32", "--prompt", "Sent", "--max-new-tokens", "4"});
  check_done(answer);
  const ProcessResult own = trained().tool(
      {"generate", "--checkpoint", "run", "--prompt", "Sent", "--max-new-tokens", "4"});
  const auto text_of = [](const ProcessResult& result) {  // between what it shows of its work
    const size_t begin = result.output.find("Sent");
    return result.output.substr(begin, result.output.find('[', begin) - begin);
  };
  CHECK(text_of(answer) == text_of(own));

  check_done(exported("bf16/of/run", {"--dtype", "bf16", "--max-shard-size", "20KB"}));
  CHECK(config_of(directory / "bf16/of/run").at("torch_dtype") == "bfloat16");
  CHECK(fs::exists(directory / "bf16/of/run/model.safetensors.index.json"));
  const double difference = largest_difference(directory / "bf16/of/run");
  CHECK(difference > 0);
  CHECK(difference < 0.02);  // 8 bits of values below 2

  const ProcessResult inspected = trained().tool({"inspect", "bf16/of/run"});
  check_done(inspected);
  CHECK(inspected.output.find("parameters: its tensors are all here, in their shapes") !=
        std::string::npos);
  CHECK(inspected.output.find("model.safetensors.index.json, and the files agree") !=
        std::string::npos);
  CHECK(inspected.output.find("model.layers.1.mlp.up_proj.weight") != std::string::npos);
}

TEST_CASE("an export of an export has the same bytes, and its own files go along", "[e2e]") {
  const Job& job = trained();
  check_done(exported("one", {"--dtype", "f16"}));
  write_text(job.directory() / "one/tokenizer.json", "{\"model\": 1}");
  write_text(job.directory() / "one/README.md", "not a side file");
  check_done(job.tool({"export", "--model", "one", "--out", "two"}));
  CHECK(names_in(job.directory() / "two") ==
        std::set<std::string>{"config.json", "generation_config.json", "model.safetensors",
                              "tokenizer.json", "tokenizer_config.json"});
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    INFO(name);
    CHECK(read_text(job.directory() / "two" / name) == read_text(job.directory() / "one" / name));
  }
}

TEST_CASE("config.json stays as it was read but for the type, and model files go along", "[e2e]") {
  const Job& job = trained();
  check_done(exported("plain"));
  std::string text = read_text(job.directory() / "plain/config.json");
  text.insert(text.find('{') + 1,
              "\n  \"kept\": [1e-05,   \"\xc3\xa4\"], \"dtype\": \"bfloat16\",");
  write_text(job.directory() / "files/config.json", text);
  write_text(job.directory() / "files/chat_template.jinja", "{{ x }}");
  write_text(job.directory() / "files/model.safetensors", "not to be copied");

  check_done(exported("named", {"--model-files", "files"}));
  CHECK(read_text(job.directory() / "named/config.json") == text);  // bf16, as it says
  CHECK(read_text(job.directory() / "named/chat_template.jinja") == "{{ x }}");
  check_done(exported("named32", {"--model-files", "files", "--dtype", "f32"}));
  Json expected = Json::parse(text);
  expected["dtype"] = "float32";
  CHECK(config_of(job.directory() / "named32") == expected);

  // What the run itself kept is found without being named.
  fs::copy(job.directory() / "files", job.run_dir() / "model_files");
  check_done(exported("found"));
  fs::remove_all(job.run_dir() / "model_files");
  CHECK(read_text(job.directory() / "found/config.json") == text);

  Json other = Json::parse(text);
  other["rope_theta"] = 123.0;
  write_text(job.directory() / "other/config.json", other.dump());
  check_refused(exported("x", {"--model-files", "other"}), 2,
                "other/config.json: config.json describes another model than the checkpoint's "
                "manifest: it must be that of the model that was trained.\n"
                "  Name the directory of that model with --model-files.");
  check_refused(exported("x", {"--model-files", "text"}), 2,
                "config error: text: there is no config.json here");
  other = Json::parse(text);
  other["dtype"] = "float8";
  write_text(job.directory() / "float8/config.json", other.dump());
  check_refused(exported("x", {"--model-files", "float8"}), 2,
                "dtype is \"float8\": it must be float32, bfloat16 or float16.\n"
                "  Say with --dtype as what the weights are to be written.");
  CHECK_FALSE(fs::exists(job.directory() / "x"));
}

double loss_of(const std::string& model) {
  const ProcessResult result = trained().tool(
      {"evaluate", "--model", model, "--data", "text/eval.txt", "--seq-length", "32", "--json"});
  check_done(result);
  const size_t begin = result.output.find('{');  // what it shows of its work is on other lines
  const size_t end = result.output.find('\n', begin);
  return Json::parse(result.output.substr(begin, end - begin)).at("loss");
}

TEST_CASE("a config.json that ties another head is not believed, on any way", "[e2e]") {
  const Job& job = trained();
  check_done(exported("untied"));
  fs::copy(job.directory() / "untied", job.directory() / "tied");
  Json config = config_of(job.directory() / "untied");
  CHECK(config.at("tie_word_embeddings") == false);
  config["tie_word_embeddings"] = true;
  write_text(job.directory() / "tied/config.json", config.dump());
  CHECK(loss_of("tied") == loss_of("untied"));

  const ProcessResult again = job.tool({"export", "--model", "tied", "--out", "tied_out"});
  check_done(again);
  CHECK(again.output.find("lm_head.weight holds other values than the embedding") !=
        std::string::npos);
  CHECK(config_of(job.directory() / "tied_out").at("tie_word_embeddings") == false);
  CHECK(read_text(job.directory() / "tied_out/model.safetensors") ==
        read_text(job.directory() / "untied/model.safetensors"));

  // Training, on one rank and cut over four, begins with that head; so does what comes out of it.
  Job training;
  fs::copy(job.directory() / "tied", training.directory() / "tied", fs::copy_options::recursive);
  fs::copy(job.directory() / "untied", training.directory() / "untied",
           fs::copy_options::recursive);
  training.edit(
      "architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, "
      "num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}",
      "path: tied");
  training.edit("max_steps: 8", "max_steps: 2");
  const ProcessResult four = training.run(4);
  check_done(four);
  CHECK(four.output.find("WARNING: tied: config.json says tie_word_embeddings: true, but") !=
        std::string::npos);
  const std::vector<std::string> lines = metric_lines(training.run_dir());
  check_done(training.tool({"export", "--checkpoint", "run", "--out", "out"}));
  CHECK(config_of(training.directory() / "out").at("tie_word_embeddings") == false);
  fs::remove_all(training.run_dir());
  check_done(training.run(4, {"--set", "model.path=untied"}));
  CHECK(metric_lines(training.run_dir()) == lines);
}

TEST_CASE("what export cannot do is refused", "[e2e]") {
  const Job& job = trained();
  check_done(exported("twice"));
  check_refused(exported("twice"), 2,
                "config error: twice: the directory already holds 5 files of a model: it must be "
                "new, empty or without such files.\n"
                "  Choose another directory, or give --overwrite to replace them as a set.\n"
                "  config.json\n  generation_config.json\n  model.safetensors\n"
                "  tokenizer.json\n  tokenizer_config.json");
  check_done(exported("twice", {"--overwrite", "--max-shard-size", "30KB"}));
  CHECK_FALSE(fs::exists(job.directory() / "twice/model.safetensors"));
  check_refused(exported("size", {"--max-shard-size", "5 GB"}), 2,
                "--max-shard-size: \"5 GB\" is no size of a file");
  check_refused(job.tool({"export", "--model", "twice", "--out", "twice/", "--overwrite"}), 2,
                "--out is the directory that is exported from: it must be another directory");
  check_refused(job.tool({"export", "--checkpoint", "nowhere", "--out", "x"}), 4,
                "checkpoint error: nowhere: there is no such directory");
  check_refused(job.tool({"export", "--model", "nowhere", "--out", "x"}), 2,
                "config error: nowhere: there is no such directory: it must be the directory of a");
  fs::create_directories(job.directory() / "pickled");
  fs::copy(job.directory() / "twice/config.json", job.directory() / "pickled/config.json");
  write_text(job.directory() / "pickled/pytorch_model-00001-of-00002.bin", "");
  check_refused(job.tool({"export", "--model", "pickled", "--out", "x"}), 3,
                "The weights are pickled (pytorch_model-00001-of-00002.bin)");
  check_refused(job.tool({"inspect", "pickled"}), 4, "checkpoint error: pickled: neither");
}

TEST_CASE("inspect names the rule that is broken, with exit code 4", "[e2e]") {
  const Job& job = trained();
  check_done(exported("whole", {"--max-shard-size", "20KB"}));
  const fs::path whole = job.directory() / "whole";
  const std::string first = [&] {
    for (const std::string& name : names_in(whole)) {
      if (name.starts_with("model-00001-of-")) return name;
    }
    return std::string();
  }();
  REQUIRE_FALSE(first.empty());
  const std::string bytes = read_text(whole / first);

  const ProcessResult one = job.tool({"inspect", "whole/" + first});
  check_done(one);
  CHECK(one.output.find("metadata  format: pt") != std::string::npos);
  CHECK(one.output.find("F32    [") != std::string::npos);

  write_text(whole / first, bytes.substr(0, bytes.size() - 1));
  check_refused(job.tool({"inspect", "whole/" + first}), 4, "the file may be truncated");
  check_refused(job.tool({"inspect", "whole"}), 4,
                "checkpoint error: whole/" + first + ": tensor \"");
  write_text(whole / first, bytes + "x");
  check_refused(job.tool({"inspect", "whole"}), 4,
                "bytes follow the header: it must end with its last tensor");
  write_text(whole / first, bytes);
  check_done(job.tool({"inspect", "whole"}));

  fs::rename(whole / first, whole / "elsewhere");
  check_refused(job.tool({"inspect", "whole"}), 4, "files that the index names are not here");
  fs::rename(whole / "elsewhere", whole / first);

  Json config = config_of(whole);
  config["intermediate_size"] = 48;
  write_text(whole / "config.json", config.dump());
  check_refused(job.tool({"inspect", "whole"}), 4,
                "whole: the tensors are not those of the model in config.json: 6 of another shape");
  config["model_type"] = "mamba";
  write_text(whole / "config.json", config.dump());
  const ProcessResult foreign = job.tool({"inspect", "whole"});
  check_done(foreign);
  CHECK(foreign.output.find("not a model that tptrain trains, so that the tensors are not checked "
                            "against it: ") != std::string::npos);
  write_text(whole / "config.json", "{");
  check_refused(job.tool({"inspect", "whole"}), 4,
                "checkpoint error: whole/config.json: not valid JSON");
  fs::remove(whole / "config.json");
  const ProcessResult bare = job.tool({"inspect", "whole"});
  check_done(bare);
  CHECK(bare.output.find("none: the tensors are checked against no model") != std::string::npos);
  check_refused(job.tool({"inspect", "gone.safetensors"}), 4,
                "checkpoint error: gone.safetensors: open failed");
}

}  // namespace
}  // namespace tptrain::testing
