// PEFT directories: those that PEFT has written are read and written again with the same tensors;
// what does not fit the model is refused as a whole.
#include "adapters/peft_files.h"

#include <ATen/ATen.h>

#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "formats/safetensors.h"
#include "model/adapter.h"
#include "model/decoder_config.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::vector<std::string> kCases = {"llama", "qwen2", "qwen3", "gpt2"};

fs::path golden(const std::string& name) { return fs::path(TPTRAIN_GOLDEN) / "adapters" / name; }

model::DecoderConfig base_of(const std::string& name) {
  const fs::path file = fs::path(TPTRAIN_GOLDEN) / "models" /
                        adapters::peft_config_of(golden(name)).base_model / "config.json";
  return model::decoder_config_from_json(read_file(file, 1 << 20), file.string());
}

Json config_json(const fs::path& directory) {
  return Json::parse(read_file(directory / "adapter_config.json", 1 << 20));
}

void write(const fs::path& path, std::string_view text) {
  fs::remove(path);
  DurableFile file(path);
  file.write(text);
  file.commit();
}

/// A copy of a golden adapter whose files may be changed.
struct Copy {
  TempDir dir;
  explicit Copy(const std::string& name) {
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
      fs::copy_file(golden(name) / file, dir.path() / file);
    }
  }
  void set(const std::string& key, const Json& value) {
    Json json = config_json(dir.path());
    json[key] = value;
    write(dir.path() / "adapter_config.json", json.dump());
  }
  /// Writes the tensors again; `change` gives another name, or "" to leave one out, and may change
  /// the shape within the same bytes.
  void rewrite(const std::function<std::string(formats::SafetensorsEntry&)>& change) {
    const formats::SafetensorsFile from(dir.path() / "adapter_model.safetensors");
    std::vector<formats::SafetensorsEntry> entries;
    std::vector<std::span<const std::byte>> bytes;
    for (const formats::SafetensorsEntry& entry : from.entries()) {
      formats::SafetensorsEntry changed = entry;
      changed.name = change(changed);
      if (changed.name.empty()) continue;
      entries.push_back(changed);
      bytes.push_back(from.bytes(entry));
    }
    formats::SafetensorsWriter writer(dir.path() / "new", entries);
    for (const auto& piece : bytes) writer.write(piece.data(), piece.size());
    writer.commit();
    fs::rename(dir.path() / "new", dir.path() / "adapter_model.safetensors");
  }
};

std::string refusal(const fs::path& directory, const model::DecoderConfig& decoder) {
  return message_of<DataError>([&] {
    adapters::open_peft(directory, decoder, adapters::read_peft_config(directory, decoder));
  });
}

void check_has(const std::string& message, const std::string& part) {
  INFO(message);
  INFO("expected: " << part);
  CHECK(message.find(part) != std::string::npos);
}

std::string bytes_of(const formats::SafetensorsFile& file, const std::string& name) {
  const auto span = file.bytes(*file.find(name));
  return {reinterpret_cast<const char*>(span.data()), span.size()};
}

TEST_CASE("an adapter that PEFT has written is written again with the same tensors") {
  for (const std::string& name : kCases) {
    CAPTURE(name);
    const model::DecoderConfig decoder = base_of(name);
    const config::AdapterConfig adapter = adapters::read_peft_config(golden(name), decoder);
    const auto source = adapters::open_peft(golden(name), decoder, adapter);
    const TempDir out;
    const adapters::ExportedAdapter done = adapters::write_peft(
        *source, decoder, adapter, {.directory = out.path() / "a", .base_model = "base"});
    const formats::SafetensorsFile before(golden(name) / "adapter_model.safetensors");
    const formats::SafetensorsFile after(out.path() / "a/adapter_model.safetensors");
    CHECK(before.entries().size() == after.entries().size());
    CHECK(after.metadata() == before.metadata());
    for (const formats::SafetensorsEntry& entry : before.entries()) {
      CAPTURE(entry.name);
      const formats::SafetensorsEntry* same = after.find(entry.name);
      REQUIRE(same != nullptr);
      CHECK(same->shape == entry.shape);
      CHECK(same->dtype == entry.dtype);
      const bool same_bytes = bytes_of(after, entry.name) == bytes_of(before, entry.name);
      CHECK(same_bytes);
    }
    CHECK(done.total_bytes == after.size_bytes() - after.data_begin());
    const Json was = config_json(golden(name));
    const Json is = config_json(out.path() / "a");
    for (const char* key : {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "bias",
                            "fan_in_fan_out", "lora_dropout", "use_dora"}) {
      CAPTURE(key);
      CHECK(is.at(key) == was.at(key));
    }
    const config::AdapterConfig again = adapters::read_peft_config(out.path() / "a", decoder);
    CHECK(again.targets == adapter.targets);
    CHECK(again.rank == adapter.rank);
    CHECK(model::adapter_scale(again) == model::adapter_scale(adapter));
    const auto reread = adapters::open_peft(out.path() / "a", decoder, again);
    CHECK(reread->tensors().size() == source->tensors().size());
  }
}

TEST_CASE("targets are words, however PEFT lists them") {
  const model::DecoderConfig decoder = base_of("llama");
  CHECK(adapters::read_peft_config(golden("llama"), decoder).targets ==
        std::vector<std::string>{"all-linear"});
  CHECK(adapters::read_peft_config(golden("qwen2"), base_of("qwen2")).targets.size() == 3);
  Copy copy("llama");
  copy.set("target_modules", ".*\\.(?:q|v)_proj");
  CHECK(adapters::read_peft_config(copy.dir.path(), decoder).targets.size() == 2);
  copy.set("target_modules", {"self_attn.q_proj", "mlp.down_proj"});
  CHECK(adapters::read_peft_config(copy.dir.path(), decoder).targets.size() == 2);
}

TEST_CASE("an adapter of other modules than this model's is refused, all named") {
  const model::DecoderConfig decoder = base_of("llama");
  Copy copy("llama");
  copy.set("target_modules", {"q_proj", "c_attn", "lm_head"});
  const std::string message = refusal(copy.dir.path(), decoder);
  check_has(message, "target_modules has \"c_attn\", which is no linear of this model's layers");
  check_has(message, "target_modules has \"lm_head\"");
  copy.set("target_modules", {"model.layers.1.self_attn.q_proj", "k_proj"});
  check_has(refusal(copy.dir.path(), decoder),
            "some of the modules called q_proj and not others (model.layers.0.self_attn.q_proj)");
  copy.set("target_modules", ".*nothing");
  check_has(refusal(copy.dir.path(), decoder), "\".*nothing\", which fits no linear");
  copy.set("target_modules", "(");
  check_has(refusal(copy.dir.path(), decoder), "adapter_config.json");
  copy.set("target_modules", "all-linear");
  copy.set("modules_to_save", {"classifier"});
  check_has(refusal(copy.dir.path(), decoder), "classifier");
}

TEST_CASE("missing, extra and wrongly shaped tensors are refused together") {
  const model::DecoderConfig decoder = base_of("llama");
  Copy copy("llama");
  const std::string prefix = "base_model.model.model.layers.";
  copy.rewrite([&](formats::SafetensorsEntry& entry) -> std::string {
    if (entry.name == prefix + "0.self_attn.q_proj.lora_A.weight") return "";
    if (entry.name == prefix + "1.mlp.up_proj.lora_B.weight") return "base_model.model.other";
    if (entry.name == prefix + "0.mlp.down_proj.lora_A.weight") {
      std::swap(entry.shape[0], entry.shape[1]);
    }
    return entry.name;
  });
  const std::string message = refusal(copy.dir.path(), decoder);
  check_has(message, "2 missing, 1 of another shape, 1 that it does not have");
  check_has(message, "missing: " + prefix + "0.self_attn.q_proj.lora_A.weight [4, 24]");
  check_has(message, "missing: " + prefix + "1.mlp.up_proj.lora_B.weight [26, 4]");
  check_has(message, "not one of them: \"base_model.model.other\" [26, 4]");
  check_has(message, "other shape: " + prefix +
                         "0.mlp.down_proj.lora_A.weight is [26, 4], it must be [4, 26]");
}

TEST_CASE("another rank than the configuration says is refused") {
  Copy copy("gpt2");
  copy.set("r", 8);
  const std::string message = refusal(copy.dir.path(), base_of("gpt2"));
  check_has(message, "the adapter of rank 8 for all-linear");
  check_has(message, "16 of another shape");
}

TEST_CASE("a directory without one of its files is no adapter") {
  Copy copy("gpt2");
  fs::remove(copy.dir.path() / "adapter_model.safetensors");
  check_has(refusal(copy.dir.path(), base_of("gpt2")), "adapter_model.safetensors is not here");
  write(copy.dir.path() / "adapter_model.bin", "x");
  check_has(refusal(copy.dir.path(), base_of("gpt2")), "would run code out of the file");
  fs::remove(copy.dir.path() / "adapter_config.json");
  check_has(refusal(copy.dir.path(), base_of("gpt2")), "adapter_config.json is not here");
}

TEST_CASE("a tied table that trains is one table") {
  const model::DecoderConfig decoder = base_of("qwen3");
  Copy copy("qwen3");
  copy.set("ensure_weight_tying", false);
  check_has(refusal(copy.dir.path(), decoder), "without ensure_weight_tying PEFT has made two");
  copy.set("ensure_weight_tying", true);
  copy.rewrite([](formats::SafetensorsEntry& entry) {  // once is enough
    return entry.name == "base_model.model.lm_head.weight" ? std::string() : entry.name;
  });
  const auto adapter = adapters::read_peft_config(copy.dir.path(), decoder);
  CHECK(adapters::open_peft(copy.dir.path(), decoder, adapter) != nullptr);
}

TEST_CASE("a file of another type is read and written as asked") {
  const model::DecoderConfig decoder = base_of("gpt2");
  const config::AdapterConfig adapter = adapters::read_peft_config(golden("gpt2"), decoder);
  const auto source = adapters::open_peft(golden("gpt2"), decoder, adapter);
  const TempDir out;
  const adapters::PeftExport order = {.directory = out.path(), .dtype = formats::Dtype::bf16};
  adapters::write_peft(*source, decoder, adapter, order);
  const formats::SafetensorsFile file(out.path() / "adapter_model.safetensors");
  CHECK(file.entries().front().dtype == formats::Dtype::bf16);
  check_has(
      message_of<ConfigError>([&] { adapters::write_peft(*source, decoder, adapter, order); }),
      "the directory already holds 2 files");
}

}  // namespace
}  // namespace tptrain::testing
