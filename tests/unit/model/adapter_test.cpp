// Which linears have adapters, what their tensors are called here and in PEFT's files, and what of
// a section is refused.
#include "model/adapter.h"

#include <algorithm>

#include "support/catch.h"

namespace tptrain::model {
namespace {

using config::AdapterConfig;
using Words = std::vector<std::string>;

DecoderConfig tiny_llama() {
  DecoderConfig config;
  config.vocab_size = 19;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  return config;
}

DecoderConfig tiny_gpt2() {
  DecoderConfig config = tiny_llama();
  config.model_type = "gpt2";
  config.norm = Norm::layer;
  config.feed_forward = FeedForward::gelu;
  config.positions = Positions::learned;
  config.max_position_embeddings = 16;
  config.num_attention_heads = 2;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.tie_word_embeddings = true;
  return config;
}

std::string text_of(const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& problem : problems) text += problem.text() + "\n";
  return text;
}

bool has(const std::string& text, const std::string& part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

TEST_CASE("all-linear is every linear of the layers, by the names of the model's files") {
  CHECK(adapter_words(tiny_llama()) ==
        Words{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
  CHECK(adapter_words(tiny_gpt2()) == Words{"c_attn", "c_proj", "c_fc"});
  CHECK(adapter_sites(tiny_llama(), {}).size() == 14);
  CHECK(adapter_sites(tiny_gpt2(), {}).size() == 8);  // c_proj: of attention and feed-forward
  CHECK(adapter_sites(tiny_llama(), {.targets = {"v_proj", "q_proj"}}).size() == 4);
}

TEST_CASE("tensors have PEFT's names and shapes in files, and ours here") {
  const sharding::StoredModel stored =
      stored_adapter(tiny_gpt2(), {.rank = 3, .targets = {"c_attn"}, .modules_to_save = {"wte"}});
  const auto find = [&](const std::string& name) {
    const auto found = std::ranges::find_if(
        stored.tensors, [&](const sharding::StoredTensor& tensor) { return tensor.name == name; });
    REQUIRE(found != stored.tensors.end());
    return *found;
  };
  CHECK(stored.tensors.size() == 2 * 4 + 1);
  const sharding::StoredTensor a = find("model.layers.1.self_attn.c_attn.lora_A.weight");
  CHECK(a.stored_name == "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight");
  CHECK(a.shape == std::vector<int64_t>{3, 8});
  const sharding::StoredTensor b = find("model.layers.1.self_attn.k_proj.lora_B.weight");
  CHECK(b.stored_name == "base_model.model.transformer.h.1.attn.c_attn.lora_B.weight");
  CHECK(b.shape == std::vector<int64_t>{8, 3});
  CHECK(b.stored_shape == std::vector<int64_t>{24, 3});
  CHECK(b.first == 8);
  CHECK_FALSE(b.transposed);
  CHECK(find("model.embed_tokens.weight").stored_name == "base_model.model.transformer.wte.weight");

  const sharding::StoredModel llama = stored_adapter(tiny_llama(), {.rank = 2});
  CHECK(llama.tensors.front().name == "model.layers.0.self_attn.q_proj.lora_A.weight");
  CHECK(llama.tensors.front().stored_name ==
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  CHECK(llama.tensors[1].name == "model.layers.0.self_attn.q_proj.lora_B.weight");
  CHECK(llama.tensors[1].shape == std::vector<int64_t>{16, 2});
}

TEST_CASE("words that name nothing are refused with those that do") {
  CHECK(check_adapter(tiny_llama(), {}).empty());
  CHECK(check_adapter(tiny_gpt2(), {.modules_to_save = {"lm_head", "ln_f"}}).empty());
  CHECK(has(text_of(check_adapter(tiny_llama(), {.targets = {"q_proj", "c_attn"}})),
            "adapter.targets[1] is c_attn, which no module of a llama model is called: it must be "
            "one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."));
  const std::string unknown =
      text_of(check_adapter(tiny_llama(), {.modules_to_save = {"embeddings"}}));
  CHECK(has(unknown, "adapter.modules_to_save[0] is embeddings, which no module"));
  CHECK(has(unknown, "embed_tokens"));
  CHECK(has(text_of(check_adapter(tiny_llama(), {.modules_to_save = {"o_proj"}})),
            "adapter.modules_to_save[0] is o_proj, which has an adapter"));
  CHECK(has(text_of(check_adapter(tiny_llama(),
                                  {.targets = {"o_proj"}, .modules_to_save = {"gate_proj"}})),
            "some of model.layers.0.mlp.gate_proj.weight and model.layers.0.mlp.up_proj.weight, "
            "which are one product"));
}

TEST_CASE("a manifest's settings are read back, and told from others by what they mean") {
  const AdapterConfig adapter = {.rank = 4,
                                 .alpha = 0.5,
                                 .targets = {"q_proj"},
                                 .dropout = 0.25,
                                 .rslora = true,
                                 .modules_to_save = {"lm_head"}};
  CHECK(adapter_from_json(to_json(adapter), "a manifest") == adapter);
  CHECK_THROWS_AS(adapter_from_json("{\"type\": \"lora\"}", "a manifest"), CheckpointError);
  CHECK_THROWS_AS(adapter_from_json("x", "a manifest"), CheckpointError);

  const DecoderConfig config = tiny_llama();
  AdapterConfig all, spelt, other;
  spelt.targets = {"down_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"};
  spelt.dropout = 0.1;
  CHECK(differences(config, all, spelt).empty());
  other.rank = 8;
  other.targets = {"v_proj", "q_proj"};
  CHECK(differences(config, spelt, other) ==
        "rank 16 -> 8, targets [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj] -> "
        "[q_proj, v_proj]");
}

TEST_CASE("a frozen linear costs no gradient of its weight") {
  const DecoderConfig config = tiny_llama();
  // Of the two layers: q, k, v, o, and three of the feed-forward; the head.
  const double linears = 2 * (8 * (16 + 8 + 8 + 16) + 3 * 8 * 12) + 19 * 8;
  const double attention = flops_per_token(config, 10) - 6 * linears;
  const double of_q = 2 * 3 * (8 + 16);
  CHECK(flops_per_token(config, {.rank = 3, .targets = {"q_proj"}}, 10) ==
        4 * linears + 6 * of_q + attention);
  CHECK(flops_per_token(config, {.rank = 3, .targets = {"q_proj"}, .modules_to_save = {"lm_head"}},
                        10) == 4 * linears + 2 * 19 * 8 + 6 * of_q + attention);
  CHECK(adapter_parameters(config, {.rank = 3, .targets = {"q_proj"}}) ==
        static_cast<int64_t>(of_q));
}

}  // namespace
}  // namespace tptrain::model
