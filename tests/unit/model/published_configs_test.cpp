// Published models' config.json: those the decoder supports give exactly the tensors of the model,
// on every tp size; the others are refused by name. Needs the folder TPTRAIN_TEST_DATA, with
// models/<name>/config.json and shapes.json ({"parameters": n, "shapes": {name: shape}}).
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "comm/communicator.h"
#include "model/decoder.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

std::filesystem::path models_folder() {
  const char* folder = std::getenv("TPTRAIN_TEST_DATA");
  if (!folder) throw std::runtime_error("TPTRAIN_TEST_DATA is not set: it names the test data");
  return std::filesystem::path(folder) / "models";
}

std::string config_text(const std::string& model) {
  return read_file(models_folder() / model / "config.json");
}

TEST_CASE("published models give their tensors, each element owned once, on every tp size") {
  for (const std::string name :
       {"Qwen2.5-0.5B", "Qwen2-7B", "Meta-Llama-3-8B", "Llama-2-7B", "TinyLlama-1.1B"}) {
    CAPTURE(name);
    const model::DecoderConfig config =
        model::decoder_config_from_json(config_text(name), name + "/config.json");
    const auto published = nlohmann::json::parse(read_file(models_folder() / name / "shapes.json"));
    CHECK(model::parameter_count(config) == published.at("parameters").get<int64_t>());
    CHECK(model::decoder_config_from_json(model::to_json(config), "again") == config);

    for (const int64_t tp_size : model::working_tp_sizes(config, 8)) {
      CAPTURE(tp_size);
      Shapes shapes;
      std::map<std::string, int64_t> owned;
      for (int rank = 0; rank < tp_size; ++rank) {
        const auto tp = comm::planning_communicator("tp", rank, static_cast<int>(tp_size));
        const model::Decoder decoder(config, *tp);
        for (const sharding::Parameter* parameter : decoder.parameters()) {
          int64_t covered = 0;
          for (const sharding::NamedSlice& slice : parameter->slices) {
            CHECK(slice.offset == covered);
            covered += slice.spec.local_numel();
            shapes[slice.spec.name] = slice.spec.global_shape;
            if (slice.owned) owned[slice.spec.name] += slice.spec.local_numel();
          }
          CHECK(covered == parameter->numel());
        }
      }
      CHECK(shapes == published.at("shapes").get<Shapes>());
      for (const auto& [tensor, shape] : shapes) {
        int64_t numel = 1;
        for (const int64_t size : shape) numel *= size;
        if (owned[tensor] != numel) FAIL_CHECK(tensor << " is owned " << owned[tensor] << " times");
      }
    }
  }
}

TEST_CASE("transformers 5 writes the same model differently") {
  CHECK(model::decoder_config_from_json(config_text("Qwen2.5-0.5B-v5form"), "five") ==
        model::decoder_config_from_json(config_text("Qwen2.5-0.5B"), "four"));
}

TEST_CASE("published models that are not supported are refused by name") {
  const std::map<std::string, std::string> refused = {
      {"Llama-3.1-8B", "rope_scaling: rope_type is \"llama3\""},
      {"Llama-3.1-8B-v5form", "rope_parameters: rope_type is \"llama3\""},
      {"Llama-3.2-1B", "rope_scaling: rope_type is \"llama3\""},
      {"Mistral-7B-v0.1", "model_type is \"mistral\""},
      {"Qwen3-0.6B", "model_type is \"qwen3\""},
      {"gpt2", "model_type is \"gpt2\""}};
  for (const auto& [name, reason] : refused) {
    CAPTURE(name);
    std::string message;
    try {
      model::decoder_config_from_json(config_text(name), name);
    } catch (const ConfigError& error) {
      message = error.what();
    }
    CHECK(message.find("config error: " + name + ": " + reason) == 0);
  }
}

}  // namespace
}  // namespace tptrain::testing
