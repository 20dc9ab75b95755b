// Published models' config.json: those the decoder supports give exactly the tensors of the model,
// on every tp size, and are stored as transformers stores them. Needs the folder TPTRAIN_TEST_DATA,
// with models/<name>/config.json and shapes.json ({"parameters": n, "shapes": {name: shape}}).
#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "comm/communicator.h"
#include "model/decoder.h"
#include "model/families/family.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

const std::vector<std::string> kPublished = {
    "Qwen2.5-0.5B",   "Qwen2-7B",     "Qwen3-0.6B",   "Meta-Llama-3-8B", "Llama-2-7B",
    "TinyLlama-1.1B", "Llama-3.1-8B", "Llama-3.2-1B", "Mistral-7B-v0.1", "gpt2"};

std::filesystem::path models_folder() {
  const char* folder = std::getenv("TPTRAIN_TEST_DATA");
  if (!folder) throw std::runtime_error("TPTRAIN_TEST_DATA is not set: it names the test data");
  return std::filesystem::path(folder) / "models";
}

std::string config_text(const std::string& model) {
  return read_file(models_folder() / model / "config.json");
}

TEST_CASE("published models give their tensors, each element owned once, on every tp size") {
  for (const std::string& name : kPublished) {
    CAPTURE(name);
    const model::DecoderConfig config =
        model::decoder_config_from_json(config_text(name), name + "/config.json");
    const auto published = nlohmann::json::parse(read_file(models_folder() / name / "shapes.json"));
    CHECK(model::parameter_count(config) == published.at("parameters").get<int64_t>());
    CHECK(model::decoder_config_from_json(model::to_json(config), "again") == config);

    Shapes canonical;
    for (const sharding::StoredTensor& tensor : model::stored_model(config).tensors)
      canonical[tensor.name] = tensor.shape;
    for (const int64_t tp_size : model::working_tp_sizes(config, 8)) {
      CAPTURE(tp_size);
      Shapes shapes;
      std::map<std::string, int64_t> owned;
      for (int rank = 0; rank < tp_size; ++rank) {
        const auto tp = comm::planning_communicator("tp", rank, static_cast<int>(tp_size));
        const model::Decoder decoder(config, *tp);
        for (const parameters::Parameter* parameter : decoder.parameters()) {
          int64_t covered = 0;
          for (const parameters::NamedSlice& slice : parameter->slices) {
            CHECK(slice.offset == covered);
            covered += slice.spec.local_numel();
            shapes[slice.spec.name] = slice.spec.global_shape;
            if (slice.owned) owned[slice.spec.name] += slice.spec.local_numel();
          }
          CHECK(covered == parameter->numel());
        }
      }
      CHECK(shapes == canonical);
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
  CHECK(model::decoder_config_from_json(config_text("Llama-3.1-8B-v5form"), "five") ==
        model::decoder_config_from_json(config_text("Llama-3.1-8B"), "four"));
}

// Where shapes.json and the files agree: names and shapes as transformers has them, in its order.
TEST_CASE("published models are stored under transformers' names, in its order") {
  for (const std::string& name : kPublished) {
    CAPTURE(name);
    const model::DecoderConfig config =
        model::decoder_config_from_json(config_text(name), name + "/config.json");
    const auto published =
        nlohmann::ordered_json::parse(read_file(models_folder() / name / "shapes.json"));
    std::vector<std::pair<std::string, std::vector<int64_t>>> expected;
    for (const auto& [tensor, shape] : published.at("shapes").items())
      expected.emplace_back(tensor, shape.get<std::vector<int64_t>>());
    std::vector<std::pair<std::string, std::vector<int64_t>>> stored;
    int64_t covered = 0;  // of the stored tensor at hand, along its output features
    for (const sharding::StoredTensor& tensor : model::stored_model(config).tensors) {
      if (stored.empty() || stored.back().first != tensor.stored_name) {
        stored.emplace_back(tensor.stored_name, tensor.stored_shape);
        covered = 0;
      }
      CHECK(stored.back().second == tensor.stored_shape);
      CHECK(tensor.first == covered);
      covered += tensor.shape[0];
      const bool last =
          covered == (tensor.transposed ? tensor.stored_shape[1] : tensor.stored_shape[0]);
      if (!last) CHECK(covered < tensor.stored_shape.back());
    }
    CHECK(stored == expected);
  }
}

}  // namespace
}  // namespace tptrain::testing
