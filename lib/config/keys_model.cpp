// The keys of model and model.architecture.
#include "config/key_binding.h"

namespace tptrain::config {

namespace {

using A = ArchitectureConfig;

std::vector<Key> source_keys() {
  return {
      bind(
          {.path = "model.path",
           .type = Type::path,
           .presence = Presence::absent,
           .doc = "Directory of a model in Hugging Face layout: `config.json`, `*.safetensors` and "
                  "the tokenizer."},
          &RunConfig::model, &ModelConfig::path),
      bind({.path = "model.init",
            .presence = Presence::absent,
            .doc = "What the values begin with: the weights of `path`, or `random`, from "
                   "train.seed.",
            .hint = "pretrained with path, random with architecture"},
           &RunConfig::model, &ModelConfig::init),
      bind({.path = "model.freeze",
            .type = Type::words,
            .doc =
                "Globs of `*` and `?` over whole Hugging Face names: the tensors that they fit do "
                "not train. They have their weights and nothing else: no gradient, no master, "
                "no moments."},
           &RunConfig::model, &ModelConfig::freeze),
      bind({.path = "model.adapter",
            .type = Type::path,
            .presence = Presence::absent,
            .doc = "Directory of an adapter that PEFT or `tptrain export` wrote "
                   "(`adapter_config.json`, `adapter_model.safetensors`): training begins with its "
                   "values. The section adapter may be left out: it is then what the directory "
                   "says."},
           &RunConfig::model, &ModelConfig::adapter),
  };
}

std::vector<Key> size_keys() {
  const std::string in = "model.architecture.";
  return {
      bind({.path = in + "model_type",
            .allowed = {"llama", "qwen2", "qwen3", "mistral", "gpt2"},
            .doc = "Family of the decoder."},
           &A::model_type),
      bind({.path = in + "vocab_size",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Rows of the embedding table.",
            .hint = "the tokenizer's size"},
           &A::vocab_size),
      bind({.path = in + "hidden_size",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Width of the residual stream.",
            .hint = "256"},
           &A::hidden_size),
      bind({.path = in + "intermediate_size",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Width of the feed-forward layers.",
            .hint = "688"},
           &A::intermediate_size),
      bind({.path = in + "num_hidden_layers",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Number of decoder layers.",
            .hint = "4"},
           &A::num_hidden_layers),
      bind({.path = in + "num_attention_heads",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Number of query heads.",
            .hint = "8"},
           &A::num_attention_heads),
      bind({.path = in + "num_key_value_heads",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Number of key and value heads (grouped-query attention).",
            .hint = "num_attention_heads"},
           &A::num_key_value_heads),
      bind({.path = in + "head_dim",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Width of one head.",
            .hint = "hidden_size / num_attention_heads"},
           &A::head_dim),
  };
}

std::vector<Key> detail_keys() {
  const std::string in = "model.architecture.";
  return {
      bind({.path = in + "max_position_embeddings",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Longest sequence: rows of gpt2's table of positions, which must be given; "
                   "the others only write it into config.json.",
            .hint = "not said"},
           &A::max_position_embeddings),
      bind({.path = in + "rms_norm_eps",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "Epsilon of the norms, gpt2's layer norms included."},
           &A::rms_norm_eps),
      bind({.path = in + "rope_theta",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "Base of the rotary position embedding."},
           &A::rope_theta),
      bind({.path = in + "tie_word_embeddings",
            .type = Type::boolean,
            .doc = "The output head shares the embedding's weights."},
           &A::tie_word_embeddings),
      bind({.path = in + "attention_bias",
            .type = Type::boolean,
            .presence = Presence::absent,
            .doc = "The query, key and value projections have a bias; but for qwen2, the output "
                   "projection too.",
            .hint = "true for qwen2 and gpt2, which know no other; else false"},
           &A::attention_bias),
      bind({.path = in + "initializer_range",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Standard deviation of the initial weights."},
           &A::initializer_range),
  };
}

}  // namespace

std::vector<Key> model_keys() { return joined({source_keys(), size_keys(), detail_keys()}); }

}  // namespace tptrain::config
