// Which model a directory is: what config.json says, against what its weights are.
#include "inference/model_directory.h"

#include <cstring>
#include <random>

#include "base/error.h"
#include "checkpoint/huggingface_source.h"
#include "formats/safetensors.h"
#include "model/families/family.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::inference {
namespace {

using formats::Dtype;
using testing::has;
using testing::message_of;
using testing::TempDir;

const char* kTied = R"({"model_type": "llama", "vocab_size": 12, "hidden_size": 8,
 "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
 "tie_word_embeddings": true)";

model::DecoderConfig config_of(const std::string& more = "}") {
  return model::decoder_config_from_json(kTied + more, "config.json");
}

struct Writing {
  std::string dropped_prefix = {};  // of every name
  Dtype head = Dtype::f32;          // of lm_head.weight
  bool with_head = true;
  float head_change = 0;  // added to its last element
};

/// Weights of the untied model, the head a copy of the embedding but for `head_change`.
void write(const std::filesystem::path& directory, const Writing& how) {
  model::DecoderConfig untied = config_of();
  untied.tie_word_embeddings = false;
  std::vector<formats::SafetensorsEntry> entries;
  std::vector<std::vector<float>> values;
  std::mt19937 random(7);
  std::vector<float> embedding;
  for (const sharding::StoredTensor& tensor : model::stored_model(untied).tensors) {
    const bool head = tensor.name == "lm_head.weight";
    if (head && !how.with_head) continue;
    std::string name = tensor.stored_name;
    if (name.starts_with(how.dropped_prefix)) name = name.substr(how.dropped_prefix.size());
    entries.push_back(
        {.name = name, .dtype = head ? how.head : Dtype::f32, .shape = tensor.stored_shape});
    int64_t numel = 1;
    for (const int64_t extent : tensor.stored_shape) numel *= extent;
    std::vector<float> own(static_cast<size_t>(numel));
    // Values that every type holds exactly.
    for (float& value : own) value = static_cast<float>(static_cast<int>(random() % 17) - 8);
    if (tensor.name == "model.embed_tokens.weight") embedding = own;
    if (head) own = embedding;
    if (head) own.back() += how.head_change;
    values.push_back(std::move(own));
  }
  formats::SafetensorsWriter writer(directory / "model.safetensors", entries, {{"format", "pt"}});
  for (size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].dtype == Dtype::f64) {
      const std::vector<double> wide(values[i].begin(), values[i].end());
      writer.write(wide.data(), wide.size() * sizeof(double));
    } else {
      writer.write(values[i].data(), values[i].size() * sizeof(float));
    }
  }
  writer.commit();
}

TEST_CASE("a tied head is what the weights say: a copy is dropped, another one is used") {
  for (const std::string prefix : {"", "model."}) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
      const TempDir copy;
      write(copy.path(), {.dropped_prefix = prefix, .head = dtype});
      const DecidedModel tied = decide_head(copy.path(), config_of());
      CHECK(tied.decoder.tie_word_embeddings);
      CHECK(tied.notes.empty());

      const TempDir other;
      write(other.path(), {.dropped_prefix = prefix, .head = dtype, .head_change = 1});
      const DecidedModel untied = decide_head(other.path(), config_of());
      CHECK_FALSE(untied.decoder.tie_word_embeddings);
      REQUIRE(untied.notes.size() == 1);
      CHECK(has(untied.notes[0],
                "config.json says tie_word_embeddings: true, but lm_head.weight "
                "holds other values than the embedding: both are used, untied"));
    }
  }
  const TempDir none;  // a config.json alone, as `plan` takes it
  CHECK(decide_head(none.path(), config_of()).decoder.tie_word_embeddings);
  write(none.path(), {.with_head = false});
  CHECK(decide_head(none.path(), config_of()).decoder.tie_word_embeddings);
}

TEST_CASE("every rank gets the model that rank 0 found in the weights") {
  const TempDir dir;
  dir.put("config.json", std::string(kTied) + "}");
  write(dir.path(), {.head_change = 1});
  comm::SingleRank alone;
  const config::ModelConfig model{.path = dir.path().string(), .init = config::Init::pretrained};
  DecidedModel decided = decide_model(alone, model, 12);
  CHECK_FALSE(decided.decoder.tie_word_embeddings);
  CHECK(decided.notes.size() == 1);
  // Weights that are not used decide nothing.
  config::ModelConfig anew = model;
  anew.init = config::Init::random;
  CHECK(decide_model(alone, anew, 12).decoder.tie_word_embeddings);
  // A tokenizer with more ids than the model has rows is told of, and not refused.
  decided = decide_model(alone, model, 14);
  CHECK(decided.notes.back() ==
        "the tokenizer has 14 ids, the model 12 rows: a text that gives an id from 12 on is "
        "refused");
}

TEST_CASE("a model without a head is refused with what to do") {
  const TempDir dir;
  write(dir.path(), {.with_head = false});
  model::DecoderConfig untied = config_of();
  untied.tie_word_embeddings = false;
  CHECK(has(message_of<DataError>([&] {
              checkpoint::HuggingFaceSource source(dir.path(), model::stored_model(untied));
            }),
            "lm_head.weight is missing, and config.json says that it is not tied to the "
            "embedding: it must hold the head's weights, or have tie_word_embeddings: true"));
}

TEST_CASE("a folder that holds an adapter is told from a model") {
  const TempDir dir;
  dir.put("adapter_config.json", R"({"base_model_name_or_path": "org/\u001b[31mbase", "r": 8})");
  const auto message = [&] {
    return message_of<ConfigError>([&] { model::check_model_directory(dir.path().string()); });
  };
  CHECK(has(message(), "this is the folder of an adapter (LoRA) of org/\\x1b[31mbase"));
  CHECK(has(message(), "tptrain export --adapter DIR --merge"));
  dir.put("config.json", std::string(kTied) + "}");  // a base model beside it: not loaded silently
  CHECK(has(message(), "it must hold a whole model and no adapter"));
}

TEST_CASE("what other programs pass over in config.json is passed over") {
  CHECK(config_of(R"(, "hidden_act": "swish", "x": Infinity, "y": [NaN, -Infinity]})") ==
        config_of());
  CHECK(config_of(R"(, "attention_dropout": 0.1})").attention_dropout == 0.1);
  CHECK(has(message_of<ConfigError>([] { config_of(R"(, "rope_theta": Infinity})"); }),
            "rope_theta is \"Infinity\": it must be a number above 0"));
}

}  // namespace
}  // namespace tptrain::inference
