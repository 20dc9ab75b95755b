// LoRA through the program. Against PEFT: an adapter that it has written is trained for ten steps
// and exported (scripts/golden/make_adapters.py; logits and gradients: tests/mpi/train/
// adapters_golden.cpp). And the way of a user: train on conversations with 4 ranks, stop, go on
// with 2, export, merge, generate.
#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "formats/safetensors.h"
#include "support/catch.h"
#include "support/process.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

using Json = nlohmann::json;

struct Layout {
  int tp = 1;
  int dp = 1;
  int zero_stage = 1;
};

fs::path golden() { return TPTRAIN_GOLDEN; }

Json json_of(const fs::path& file) { return Json::parse(read_text(file)); }

void check_done(const ProcessResult& result) {
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
}

void check_refused(const ProcessResult& result, int exit_code, const std::string& message) {
  INFO(result.output);
  INFO("expected: " << message);
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.find(message) != std::string::npos);
}

at::Tensor tensor_of(const formats::SafetensorsFile& file, const std::string& name) {
  const formats::SafetensorsEntry* entry = file.find(name);
  INFO(name);
  REQUIRE(entry != nullptr);
  const at::ScalarType type = entry->dtype == formats::Dtype::i64 ? at::kLong : at::kFloat;
  at::Tensor values = at::empty(entry->shape, type);
  std::memcpy(values.mutable_data_ptr(), file.bytes(*entry).data(), file.bytes(*entry).size());
  return values;
}

std::vector<Json> steps_of(const fs::path& run_dir) {
  std::vector<Json> steps;
  std::istringstream lines(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json row = Json::parse(line);
    if (row.contains("loss")) steps.push_back(std::move(row));
  }
  return steps;
}

void write_rows(const at::Tensor& batches, const fs::path& path) {  // [steps, B, T]
  std::ofstream out(path);
  const at::Tensor rows = batches.reshape({-1, batches.size(-1)});
  for (int64_t i = 0; i < rows.size(0); ++i) {
    const int64_t* ids = rows[i].const_data_ptr<int64_t>();
    out << Json{{"input_ids", std::vector<int64_t>(ids, ids + rows.size(1))}} << "\n";
  }
}

// As tests/e2e/train/golden.cpp: Adam makes whole steps of the rounding noise of gradients that are
// nearly zero, in a few single elements.
void check_trained(const formats::SafetensorsFile& numbers, const fs::path& exported) {
  const formats::SafetensorsFile adapter(exported / "adapter_model.safetensors");
  size_t compared = 0;
  for (const formats::SafetensorsEntry& entry : adapter.entries()) {
    // The head of a tied table is the table, which is golden under its own name.
    if (numbers.find("final." + entry.name) == nullptr) {
      CHECK(entry.name == "base_model.model.lm_head.weight");
      continue;
    }
    const at::Tensor expected = tensor_of(numbers, "final." + entry.name);
    const at::Tensor difference = (tensor_of(adapter, entry.name) - expected).abs();
    const at::Tensor near = difference.masked_select(difference <= 1e-4);
    CAPTURE(entry.name);
    REQUIRE(difference.sizes() == expected.sizes());
    CHECK(near.to(at::kDouble).square().mean().sqrt().item<double>() <= 1e-5);
    CHECK(difference.numel() - near.numel() <= 1 + difference.numel() / 2000);
    CHECK(difference.max().item<double>() <= 2e-3);
    ++compared;
  }
  CHECK(compared >= 12);
}

/// Names and shapes are those of the directory that PEFT has written, and so is every key of the
/// config but what names the base and lists modules.
void check_files(const fs::path& by_peft, const fs::path& exported) {
  const auto shapes_of = [](const fs::path& directory) {
    const formats::SafetensorsFile file(directory / "adapter_model.safetensors");
    std::map<std::string, std::vector<int64_t>> shapes;
    for (const formats::SafetensorsEntry& entry : file.entries()) shapes[entry.name] = entry.shape;
    return shapes;
  };
  CHECK(shapes_of(exported) == shapes_of(by_peft));
  const Json theirs = json_of(by_peft / "adapter_config.json");
  const Json ours = json_of(exported / "adapter_config.json");
  for (const auto& [key, value] : ours.items()) {
    if (key == "base_model_name_or_path" || key == "target_modules" || key == "modules_to_save")
      continue;
    CAPTURE(key);
    REQUIRE(theirs.contains(key));
    CHECK(theirs[key] == value);
  }
  CHECK(ours["modules_to_save"].is_null() == theirs["modules_to_save"].is_null());
}

void train_and_compare(const std::string& name, const Layout& layout) {
  CAPTURE(name, layout.tp, layout.dp, layout.zero_stage);
  const fs::path adapter = golden() / "adapters" / name;
  const std::string base = json_of(adapter / "adapter_config.json")["base_model_name_or_path"];
  const formats::SafetensorsFile numbers(adapter / "golden.safetensors");
  const at::Tensor batches = tensor_of(numbers, "train.input_ids");
  Job job;
  write_rows(batches, job.directory() / "rows.jsonl");
  write_text(
      job.config(),
      cat("run_dir: run\nmodel: {path: ", (golden() / "models" / base).string(),
          ", adapter: ", adapter.string(), "}\nparallel: {tp_size: ", layout.tp,
          ", dp_size: ", layout.dp, ", zero_stage: ", layout.zero_stage,
          "}\ndata: {train: [rows.jsonl], packing: none, shuffle: false, tokenizer: bytes}\n"
          "train: {seq_length: ",
          batches.size(2), ", micro_batch_size: ", batches.size(1) / layout.dp,
          ", global_batch_size: ", batches.size(1), ", max_steps: ", batches.size(0),
          ", device: cpu, dtype: fp32}\n"
          "optimizer: {learning_rate: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1,"
          " max_grad_norm: 1.0}\nscheduler: {type: constant}\n"));
  check_done(job.run(layout.tp * layout.dp));
  const at::Tensor losses = tensor_of(numbers, "train.loss");
  const at::Tensor norms = tensor_of(numbers, "train.grad_norm");
  const std::vector<Json> steps = steps_of(job.run_dir());
  REQUIRE(static_cast<int64_t>(steps.size()) == losses.numel());
  for (int64_t i = 0; i < losses.numel(); ++i) {
    CAPTURE(i);
    const Json& step = steps[static_cast<size_t>(i)];
    CHECK(std::abs(step["loss"].get<double>() / losses[i].item<double>() - 1) <= 1e-4);
    CHECK(std::abs(step["grad_norm"].get<double>() / norms[i].item<double>() - 1) <= 1e-4);
  }
  check_done(job.tool({"export", "--checkpoint", "run", "--out", "exported"}));
  check_trained(numbers, job.directory() / "exported");
  check_files(adapter, job.directory() / "exported");
}

/// What stands between the prompt and the line about speed.
std::string answer_of(const ProcessResult& result) {
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  const size_t begin = result.output.find("The ");
  REQUIRE(begin != std::string::npos);
  return result.output.substr(begin, result.output.rfind("\n[") - begin);
}

// Questions with few answers: something to learn in few steps.
std::string conversations() {
  std::string rows;
  const std::vector<std::string> colours = {"red", "green", "blue", "white"};
  for (int i = 0; i < 32; ++i) {
    const std::string& colour = colours[static_cast<size_t>(i) % colours.size()];
    rows += Json{{"messages",
                  {{{"role", "user"}, {"content", cat("Which one is ", colour, "?")}},
                   {{"role", "assistant"}, {"content", cat("It is the ", colour, " one.")}}}}}
                .dump() +
            "\n";
  }
  return rows;
}

// Qwen2.5-0.5B with two of its layers and the vocabulary of bytes: the base, of random values, and
// a run file for the adapter.
void prepare_conversations(const Job& job) {
  fs::create_directories(job.directory() / "shape");
  write_text(job.directory() / "shape/config.json",
             R"({"model_type": "qwen2", "vocab_size": 272, "hidden_size": 896,
                 "intermediate_size": 4864, "num_hidden_layers": 2, "num_attention_heads": 14,
                 "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
                 "max_position_embeddings": 32768, "hidden_act": "silu",
                 "tie_word_embeddings": true})");
  write_text(job.directory() / "chat.jsonl", conversations());
  write_text(job.directory() / "chat.jinja",
             "{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
             "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}");
  const std::string common =
      "parallel: {tp_size: 2, dp_size: 2, zero_stage: 1}\n"
      "data: {train: [chat.jsonl], chat_template: chat.jinja, tokenizer: bytes}\n"
      "train: {seq_length: 64, micro_batch_size: 4, global_batch_size: 8, max_steps: 6,\n"
      "  device: cpu, dtype: fp32}\n"
      "optimizer: {learning_rate: 5e-4}\n"
      "scheduler: {type: constant}\n"
      "checkpoint: {save_steps: 6}\n";
  write_text(job.config(), "run_dir: before\nmodel: {path: shape, init: random}\n" + common);
  check_done(job.run(4, {"--set", "train.max_steps=1"}));
  check_done(job.tool({"export", "--checkpoint", "before", "--out", "base"}));
  write_text(job.config(),
             "run_dir: run\nmodel: {path: base}\n"
             "adapter: {rank: 8, alpha: 16, dropout: 0.05}\n" +
                 common);
}

}  // namespace

TEST_CASE("ten steps of an adapter that PEFT has written are PEFT's", "[e2e][golden]") {
  train_and_compare("llama", {2, 2, 3});
  train_and_compare("qwen2", {4, 1, 1});
  train_and_compare("qwen3", {2, 2, 1});
  train_and_compare("gpt2", {2, 2, 2});
  train_and_compare("gpt2", {1, 1, 0});
}

TEST_CASE("an adapter is trained, resumed elsewhere, exported, merged and used", "[e2e]") {
  const Job job;
  prepare_conversations(job);
  check_done(job.run(4));
  check_done(job.run(2, {"--set", "parallel.dp_size=1", "--set", "train.max_steps=10"}));
  const std::vector<Json> steps = steps_of(job.run_dir());
  REQUIRE(steps.size() == 10);
  CHECK(steps.back()["loss"].get<double>() < 0.8 * steps.front()["loss"].get<double>());

  // The checkpoint holds the adapter, and the export what PEFT loads.
  const fs::path checkpoint = checkpoint_at(job.run_dir(), 10);
  int64_t bytes = 0;
  for (const auto& [name, content] : shards_of(checkpoint)) {
    bytes += static_cast<int64_t>(content.size());
  }
  check_done(job.tool({"export", "--checkpoint", "run", "--out", "adapter"}));
  const fs::path weights = job.directory() / "adapter/adapter_model.safetensors";
  const formats::SafetensorsFile adapter(weights);
  CHECK(adapter.entries().size() == 2 * 7 * 2);
  CHECK(bytes < 4 * adapter.size_bytes());  // masters and two moments
  const Json config = json_of(job.directory() / "adapter/adapter_config.json");
  CHECK(config["r"] == 8);
  CHECK(config["lora_alpha"] == 16);
  CHECK(fs::equivalent(config["base_model_name_or_path"].get<std::string>(),
                       job.directory() / "base"));

  check_done(job.tool({"export", "--checkpoint", "run", "--out", "merged", "--merge"}));
  check_done(job.tool({"export", "--adapter", "adapter", "--out", "merged2", "--merge"}));
  CHECK(read_text(job.directory() / "merged/model.safetensors") ==
        read_text(job.directory() / "merged2/model.safetensors"));

  const auto generate = [&](std::vector<std::string> from) {
    std::vector<std::string> arguments = {"generate", "--prompt",    "The ", "--max-new-tokens",
                                          "12",       "--tokenizer", "bytes"};
    arguments.insert(arguments.end(), from.begin(), from.end());
    return answer_of(job.tool(arguments));
  };
  const std::string answer = generate({"--checkpoint", "run"});
  CHECK(generate({"--adapter", "adapter"}) == answer);
  CHECK(generate({"--model", "merged"}) == answer);
  CHECK(generate({"--model", "base"}) != answer);

  // A base that has moved is found by name, another one is not taken.
  fs::rename(job.directory() / "base", job.directory() / "moved");
  check_refused(job.tool({"export", "--checkpoint", "run", "--out", "m3", "--merge"}), 4,
                "the base model of the adapter is not here");
  CHECK(generate({"--checkpoint", "run", "--base", "moved"}) == answer);
  check_refused(job.tool({"generate", "--adapter", "adapter", "--prompt", "The "}), 2,
                "Name the directory of the base model with --base");
  check_refused(
      job.tool({"export", "--checkpoint", "run", "--base", "merged", "--out", "m4", "--merge"}), 4,
      "the weights are not those that the adapter of");
}

}  // namespace tptrain::testing
