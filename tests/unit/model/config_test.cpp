// The decoder's shape from config.json and from the run file: what is read, what is refused and in
// which words, and the sizes that follow.
#include <string>
#include <vector>

#include "base/error.h"
#include "model/decoder_config.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using model::check_tp_size;
using model::decoder_config;
using model::decoder_config_from_json;
using model::DecoderConfig;

const std::string kLlama =
    R"("model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
       "num_hidden_layers": 2, "num_attention_heads": 4)";

std::string with(const std::string& more) { return "{" + kLlama + ", " + more + "}"; }

std::string qwen2(const std::string& more) {
  return R"({"model_type": "qwen2", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4)" +
         more + "}";
}

std::string of(const std::string& model_type, const std::string& more) {
  return R"({"model_type": ")" + model_type +
         R"(", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2)" +
         more + "}";
}

std::string gpt2(const std::string& more) {
  return R"({"model_type": "gpt2", "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4,
             "n_positions": 24)" +
         more + "}";
}

// The message with which a config.json is refused; "" where it is accepted.
std::string refusal(const std::string& json) {
  try {
    decoder_config_from_json(json, "config.json");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

config::ModelConfig architecture() {
  config::ModelConfig model;
  model.architecture = config::ArchitectureConfig{};
  model.architecture->hidden_size = 32;
  model.architecture->intermediate_size = 48;
  model.architecture->num_hidden_layers = 2;
  model.architecture->num_attention_heads = 4;
  return model;
}

std::string refusal(const config::ModelConfig& model, int64_t tokenizer_vocab_size) {
  try {
    decoder_config(model, tokenizer_vocab_size);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("keys left out take transformers' defaults") {
  const DecoderConfig config = decoder_config_from_json("{" + kLlama + "}", "config.json");
  CHECK(config.num_key_value_heads == 4);
  CHECK(config.head_dim == 8);
  CHECK(config.norm_eps == 1e-6);
  CHECK(config.rope_theta == 10000.0);
  CHECK_FALSE(config.tie_word_embeddings);
  CHECK_FALSE(config.qkv_bias);
  CHECK_FALSE(config.o_bias);
  CHECK(decoder_config_from_json(with(R"("head_dim": null, "num_key_value_heads": null)"), "c") ==
        config);
}

TEST_CASE("the forms of transformers 4 and 5 give one shape") {
  const DecoderConfig four = decoder_config_from_json(
      with(R"("rope_theta": 500000.0, "rope_scaling": null, "torch_dtype": "bfloat16")"), "c");
  const DecoderConfig five = decoder_config_from_json(
      with(R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
              "dtype": "bfloat16")"),
      "c");
  CHECK(four.rope_theta == 500000.0);
  CHECK(four == five);
  CHECK(refusal(with(R"("rope_scaling": {"type": "default"})")).empty());
}

TEST_CASE("biases are the family's") {
  const DecoderConfig biased = decoder_config_from_json(with(R"("attention_bias": true)"), "c");
  CHECK(biased.qkv_bias);
  CHECK(biased.o_bias);  // transformers' llama biases o with the same key
  const DecoderConfig qwen = decoder_config_from_json(qwen2(""), "c");
  CHECK(qwen.qkv_bias);
  CHECK_FALSE(qwen.o_bias);
}

TEST_CASE("families' forms and transformers' defaults of keys left out") {
  const DecoderConfig qwen3 = decoder_config_from_json(of("qwen3", ""), "c");
  CHECK(qwen3.qk_norm);
  CHECK(qwen3.head_dim == 128);
  CHECK_FALSE(qwen3.qkv_bias);
  CHECK(decoder_config_from_json(of("qwen3", R"(, "head_dim": null)"), "c").head_dim == 8);
  CHECK(decoder_config_from_json(of("qwen3", R"(, "attention_bias": true)"), "c").o_bias);

  const DecoderConfig mistral = decoder_config_from_json(of("mistral", ""), "c");
  CHECK(mistral.sliding_window == 4096);
  CHECK_FALSE(mistral.qkv_bias);
  CHECK(
      decoder_config_from_json(of("mistral", R"(, "sliding_window": null)"), "c").sliding_window ==
      0);

  const DecoderConfig gpt = decoder_config_from_json(gpt2(R"(, "attn_pdrop": 0.1)"), "c");
  CHECK(gpt.norm == model::Norm::layer);
  CHECK(gpt.feed_forward == model::FeedForward::gelu);
  CHECK(gpt.positions == model::Positions::learned);
  CHECK(gpt.max_position_embeddings == 24);
  CHECK(gpt.intermediate_size == 128);
  CHECK(gpt.num_key_value_heads == 4);
  CHECK(gpt.norm_eps == 1e-5);
  CHECK((gpt.qkv_bias && gpt.o_bias && gpt.mlp_bias && gpt.tie_word_embeddings));

  const DecoderConfig llama = decoder_config_from_json(with(R"("mlp_bias": true)"), "c");
  CHECK(llama.mlp_bias);
  // A window that no layer looks through is none.
  CHECK(refusal(of("qwen3", R"(, "use_sliding_window": true, "max_window_layers": 2)")).empty());
}

TEST_CASE("scaled rotary embeddings in every form of the key") {
  using Kind = model::RotaryScaling::Kind;
  const std::string values =
      R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192)";
  const DecoderConfig four = decoder_config_from_json(
      with(R"("rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", )" + values + "}"), "c");
  CHECK(four.rope_scaling == model::RotaryScaling{.kind = Kind::llama3,
                                                  .factor = 8.0,
                                                  .low_freq_factor = 1.0,
                                                  .high_freq_factor = 4.0,
                                                  .original_max_position_embeddings = 8192});
  CHECK(
      decoder_config_from_json(
          with(R"("rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", )" + values + "}"),
          "c") == four);
  const DecoderConfig linear =
      decoder_config_from_json(with(R"("rope_scaling": {"type": "linear", "factor": 2.0})"), "c");
  CHECK(linear.rope_scaling == model::RotaryScaling{.kind = Kind::linear, .factor = 2.0});
}

TEST_CASE("sequences are no longer than learned positions or a sliding window") {
  const auto problems = [](const std::string& json, int64_t length) {
    std::string text;
    for (const Problem& problem :
         model::check_seq_length(decoder_config_from_json(json, "c"), length))
      text += problem.text();
    return text;
  };
  CHECK(problems(gpt2(""), 24).empty());
  CHECK(problems(gpt2(""), 25) ==
        "train.seq_length is 25, and the model's max_position_embeddings is 24: it must be at most "
        "that.\n  Positions are learned: there are no embeddings of later ones.");
  CHECK(problems(of("mistral", R"(, "sliding_window": 16)"), 16).empty());
  CHECK(problems(of("mistral", R"(, "sliding_window": 16)"), 17) ==
        "train.seq_length is 17, and the model's sliding_window is 16: it must be at most that.\n  "
        "Sliding windows are not built: up to that length the model has none.");
  CHECK(problems(with(R"("max_position_embeddings": 8)"), 4096).empty());  // rotary: no bound
}

TEST_CASE("to_json is read back to an equal shape") {
  for (const std::string& json :
       {with(R"("attention_bias": true, "rms_norm_eps": 1e-05, "head_dim": 16)"),
        qwen2(R"(, "rope_theta": 1000000.0, "tie_word_embeddings": true,
                 "initializer_range": 0.0123456789012345)"),
        with(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
                "mlp_bias": true, "max_position_embeddings": 131072)"),
        with(R"("rope_scaling": {"type": "linear", "factor": 2.5})"),
        of("qwen3", R"(, "head_dim": 16, "attention_bias": true)"),
        of("mistral", R"(, "sliding_window": null)"), of("mistral", R"(, "sliding_window": 16)"),
        gpt2(""), gpt2(R"(, "n_inner": 100, "tie_word_embeddings": false)")}) {
    const DecoderConfig config = decoder_config_from_json(json, "c");
    CHECK(decoder_config_from_json(to_json(config), "c") == config);
  }
}

TEST_CASE("what the decoder does not support is refused by its key") {
  struct Case {
    std::string json;
    std::string message;
  };
  const std::string rope = "Other scaled forms of the rotary embedding are not built.";
  const std::string moe = "Mixtures of experts are not built.";
  const std::string gelu =
      "it must be \"gelu_new\" or \"gelu_pytorch_tanh\".\n  Other activations are not built.";
  const std::vector<Case> cases = {
      {with(R"("rope_scaling": {"rope_type": "yarn", "factor": 8.0})"),
       "config.json: rope_scaling: rope_type is \"yarn\": it must be one of: default, linear, "
       "llama3.\n  " +
           rope},
      {with(R"("rope_scaling": {"type": "dynamic", "factor": 2.0})"),
       "config.json: rope_scaling: type is \"dynamic\": it must be one of: default, linear, "
       "llama3.\n  " +
           rope},
      {with(R"("rope_parameters": {"rope_type": "longrope"})"),
       "config.json: rope_parameters: rope_type is \"longrope\": it must be one of: default, "
       "linear, llama3.\n  " +
           rope},
      {with(R"("rope_scaling": {"factor": 2.0})"),
       "config.json: rope_scaling: factor is 2.0: it must be 1.0 or absent.\n  Without a rope_type "
       "it is unclear what is scaled."},
      {with(R"("rope_scaling": {"rope_type": "linear"})"),
       "config.json: rope_scaling: factor is missing: it must be a number above 0."},
      {with(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32})"),
       "config.json: rope_scaling: high_freq_factor is 4 and low_freq_factor is 4: it must be the "
       "larger one."},
      {with(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0})"),
       "config.json: rope_scaling: original_max_position_embeddings is missing: it must be an "
       "integer from 1 to 2147483647."},
      {with(R"("rope_parameters": {"partial_rotary_factor": 0.5})"),
       "config.json: rope_parameters: partial_rotary_factor is 0.5: it must be 1.0 or absent.\n  "
       "Every element of a head is rotated."},
      {with(R"("partial_rotary_factor": 0.5)"),
       "config.json: partial_rotary_factor is 0.5: it must be 1.0 or absent.\n  Every element of a "
       "head is rotated."},
      {with(R"("hidden_act": "gelu")"),
       "config.json: hidden_act is \"gelu\": it must be \"silu\" or absent.\n  The family's "
       "feed-forward is SwiGLU."},
      {with(R"("attention_dropout": 1.0)"),
       "config.json: attention_dropout is 1.0: it must be a number from 0 to below 1."},
      {with(R"("quantization_config": {"bits": 4})"),
       "config.json: quantization_config is {\"bits\":4}: it must be absent.\n  Quantized weights "
       "cannot be trained; use the unquantized model."},
      {with(R"("num_local_experts": 8)"),
       "config.json: num_local_experts is 8: it must be absent.\n  " + moe},
      {with(R"("layer_types": ["full_attention", "sliding_attention"])"),
       "config.json: layer_types holds \"sliding_attention\": it must hold \"full_attention\" "
       "only.\n  The decoder attends to the whole sequence in every layer."},
      {with(R"("layer_types": 7)"), "config.json: layer_types is 7: it must be a list."},
      {qwen2(R"(, "use_sliding_window": true, "max_window_layers": 1)"),
       "config.json: use_sliding_window is true, with max_window_layers 1 of 2 layers: it must be "
       "false or absent.\n  The decoder attends to the whole sequence; sliding windows are not "
       "built."},
      {qwen2(R"(, "use_mrope": true)"),
       "config.json: use_mrope is true: it must be false or absent.\n  Multimodal rotary positions "
       "are not built."},
      {qwen2(R"(, "attention_bias": false)"),
       "config.json: attention_bias is false: it must be true or absent.\n  Qwen2 has biases of q, "
       "k "
       "and v in every checkpoint."},
      {of("mistral", R"(, "attention_bias": true)"),
       "config.json: attention_bias is true: it must be false or absent.\n  Mistral has no "
       "biases."},
      {gpt2(R"(, "activation_function": "gelu")"),
       "config.json: activation_function is \"gelu\": " + gelu},
      {gpt2(R"(, "scale_attn_weights": false)"),
       "config.json: scale_attn_weights is false: it must be true or absent.\n  Attention scores "
       "are scaled by 1 / sqrt(D)."},
      {gpt2(R"(, "scale_attn_by_inverse_layer_idx": true)"),
       "config.json: scale_attn_by_inverse_layer_idx is true: it must be false or absent.\n  "
       "Attention scores are scaled alike in every layer."},
      {gpt2(R"(, "reorder_and_upcast_attn": true)"),
       "config.json: reorder_and_upcast_attn is true: it must be false or absent.\n  Attention "
       "works in fp32 inside in any case; set it to false."},
      {gpt2(R"(, "add_cross_attention": true)"),
       "config.json: add_cross_attention is true: it must be false or absent.\n  Cross attention "
       "is not built."},
      {R"({"model_type": "gpt_neox", "n_embd": 768})",
       "config.json: model_type is \"gpt_neox\": it must be one of: llama, qwen2, qwen3, mistral, "
       "gpt2.\n  Other architectures differ in more than names; tptrain would train them "
       "wrongly."},
      {R"({"vocab_size": 9})",
       "config.json: model_type is missing: it must be one of: llama, qwen2, qwen3, mistral, "
       "gpt2."},
  };
  for (const Case& c : cases) CHECK(refusal(c.json) == "config error: " + c.message);
}

TEST_CASE("sizes that no model has are refused before anything is made of them") {
  const std::string json = R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 32,
      "intermediate_size": 48, "num_hidden_layers": 2000000000, "num_attention_heads": 4})";
  CHECK(refusal(json) ==
        "config error: config.json: num_hidden_layers is 2000000000: it must be at most 10000.\n"
        "  Copy the model's config.json again.");
}

TEST_CASE("all problems of a config.json are told at once") {
  CHECK(
      refusal(R"({"model_type": "llama", "vocab_size": "96", "hidden_size": 32.0,
                    "intermediate_size": -48, "num_attention_heads": 4294967296,
                    "rms_norm_eps": 0, "tie_word_embeddings": "no", "rope_parameters": [1]})") ==
      "config error: config.json: vocab_size is \"96\": it must be an integer from 1 to "
      "2147483647.\n"
      "config error: config.json: hidden_size is 32.0: it must be an integer from 1 to "
      "2147483647.\n"
      "config error: config.json: intermediate_size is -48: it must be an integer from 1 to "
      "2147483647.\n"
      "config error: config.json: num_hidden_layers is missing: it must be an integer from 1 to "
      "2147483647.\n"
      "config error: config.json: num_attention_heads is 4294967296: it must be an integer from 1 "
      "to 2147483647.\n"
      "config error: config.json: rms_norm_eps is 0: it must be a number above 0.\n"
      "config error: config.json: tie_word_embeddings is \"no\": it must be true or false.\n"
      "config error: config.json: rope_parameters is [1]: it must be an object.");
  CHECK(refusal(R"({"model_type": 7})") ==
        "config error: config.json: model_type is 7: it must be a string.");
}

TEST_CASE("sizes that contradict each other are refused") {
  CHECK(
      refusal(with(R"("num_key_value_heads": 3)")) ==
      "config error: config.json: num_attention_heads is 4 and num_key_value_heads is 3: it must "
      "be a multiple of num_key_value_heads.\n  Each key/value head serves an equal group of query "
      "heads.");
  CHECK(refusal(with(R"("head_dim": 5)")) ==
        "config error: config.json: head_dim is 5: it must be even.\n  The rotary embedding turns "
        "pairs of elements.");
  CHECK(
      refusal(R"({"model_type": "llama", "vocab_size": 96, "hidden_size": 30,
                    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4})") ==
      "config error: config.json: hidden_size is 30 and num_attention_heads is 4: it must divide, "
      "or head_dim must be given.\n  Set head_dim, or choose sizes that divide.");
}

TEST_CASE("text that is no JSON object is refused") {
  CHECK(refusal("{\"model_type\": ").find("config error: config.json: the text is no JSON (") == 0);
  CHECK(
      refusal("{\"rope_theta\": 1e999}").find("config error: config.json: the text is no JSON (") ==
      0);
  CHECK(refusal("[1, 2]") ==
        "config error: config.json: the file holds a JSON array: it must hold an object, as every "
        "config.json does.");
}

TEST_CASE("long values are cut in messages") {
  const std::string message = refusal(with("\"hidden_act\": \"" + std::string(500, 'x') + "\""));
  CHECK(message.size() < 300);
  CHECK(message.find("xxx...: it must be \"silu\"") != std::string::npos);
}

TEST_CASE("the run file's architecture is completed as transformers does") {
  config::ModelConfig model = architecture();
  DecoderConfig config = decoder_config(model, /*tokenizer_vocab_size=*/300);
  CHECK(config.vocab_size == 300);  // left out: the tokenizer's
  CHECK(config.num_key_value_heads == 4);
  CHECK(config.head_dim == 8);
  CHECK_FALSE(config.qkv_bias);

  model.architecture->attention_bias = true;
  model.architecture->vocab_size = 320;
  config = decoder_config(model, 300);
  CHECK(config.vocab_size == 320);
  CHECK(config.qkv_bias);
  CHECK(config.o_bias);

  model.architecture->model_type = "qwen2";
  model.architecture->attention_bias.reset();
  config = decoder_config(model, 300);
  CHECK(config.qkv_bias);
  CHECK_FALSE(config.o_bias);
}

TEST_CASE("the run file's architecture is refused with all its problems") {
  config::ModelConfig model;
  model.architecture = config::ArchitectureConfig{};
  CHECK(
      refusal(model, 0) ==
      "config error: model.architecture: vocab_size is 0: it must be given, as an integer above "
      "0.\n"
      "config error: model.architecture: hidden_size is 0: it must be given, as an integer above "
      "0.\n"
      "config error: model.architecture: intermediate_size is 0: it must be given, as an integer "
      "above 0.\n"
      "config error: model.architecture: num_hidden_layers is 0: it must be given, as an integer "
      "above 0.\n"
      "config error: model.architecture: num_attention_heads is 0: it must be given, as an integer "
      "above 0.");

  model = architecture();
  model.architecture->model_type = "qwen2";
  model.architecture->attention_bias = false;
  model.architecture->vocab_size = 100;
  CHECK(refusal(model, 300) ==
        "config error: model.architecture: attention_bias is false: it must be true or absent for "
        "qwen2.\n  Use model_type llama for a model without these biases.\n"
        "config error: the model's vocab_size is 100 and the tokenizer has 300 ids: it must hold "
        "every id of the tokenizer.\n  Use the tokenizer that belongs to the model, or leave "
        "vocab_size out of model.architecture.");

  model.architecture->model_type = "mamba";
  CHECK(refusal(model, 300) ==
        "config error: model.architecture: model_type is \"mamba\": it must be one of: llama, "
        "qwen2, qwen3, mistral, gpt2.\n  Other architectures differ in more than names; tptrain "
        "would train them wrongly.");

  model = architecture();
  model.architecture->model_type = "mistral";
  model.architecture->attention_bias = true;
  CHECK(refusal(model, 300) ==
        "config error: model.architecture: attention_bias is true: it must be false or absent for "
        "mistral.\n  Use model_type llama for a model with these biases.");

  model.architecture->model_type = "gpt2";
  model.architecture->num_key_value_heads = 2;
  model.architecture->head_dim = 16;
  CHECK(refusal(model, 300) ==
        "config error: model.architecture: max_position_embeddings is 0: it must be given for "
        "gpt2, as an integer above 0.\n  Positions are learned: it is the longest sequence there "
        "will be.\n"
        "config error: model.architecture: num_key_value_heads is 2 and num_attention_heads is 4: "
        "it must be the same for gpt2, or num_key_value_heads absent.\n"
        "config error: model.architecture: head_dim is 16: it must be hidden_size / "
        "num_attention_heads for gpt2, or absent.");
}

TEST_CASE("a model directory is read through its config.json") {
  const TempDir directory;
  config::ModelConfig model;
  model.path = directory.path().string();
  CHECK(
      refusal(model, 0) ==
      "config error: " + model.path +
          ": there is no config.json in it: it must be the directory of a Hugging Face model.\n"
          "  config.json, *.safetensors and the tokenizer stand in one; `tptrain fetch OWNER/NAME` "
          "brings one from the hub.");
  CHECK(
      refusal({.path = model.path + "/x"}, 0).find("/x: there is no such directory: it must be") !=
      std::string::npos);
  directory.put("config.json", "{" + kLlama + "}");
  CHECK(decoder_config(model, 90).vocab_size == 96);  // tables are often padded
}

// The problems of a tp size for these heads, each as its text.
std::vector<std::string> tp_problems(int64_t heads, int64_t kv_heads, int64_t tp_size) {
  DecoderConfig config = decoder_config_from_json("{" + kLlama + "}", "config.json");
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  std::vector<std::string> texts;
  for (const Problem& problem : check_tp_size(config, tp_size)) texts.push_back(problem.text());
  return texts;
}

TEST_CASE("any tp size works up to the kv heads, beyond them their multiples") {
  DecoderConfig config = decoder_config_from_json("{" + kLlama + "}", "config.json");
  const auto working = [&](int64_t heads, int64_t kv_heads) {
    config.num_attention_heads = heads;
    config.num_key_value_heads = kv_heads;
    return model::working_tp_sizes(config);
  };
  using Sizes = std::vector<int64_t>;
  CHECK(working(4, 2) == Sizes{1, 2, 4});
  CHECK(working(14, 2) == Sizes{1, 2, 4, 6, 8, 10, 12, 14});
  CHECK(working(6, 3) == Sizes{1, 2, 3, 6});
  CHECK(working(3, 1) == Sizes{1, 2, 3});
  CHECK(working(5, 5) == Sizes{1, 2, 3, 4, 5});
  config.intermediate_size = 3;  // neither it nor the vocabulary need divide, but each rank has one
  CHECK(working(4, 2) == Sizes{1, 2});
  config.intermediate_size = 48;
  config.vocab_size = 1;
  CHECK(working(4, 2) == Sizes{1});
}

TEST_CASE("tp sizes that do not work are told with those that do") {
  using Texts = std::vector<std::string>;
  CHECK(tp_problems(14, 2, 4) == Texts{});
  CHECK(tp_problems(14, 2, 3) ==
        Texts{"parallel.tp_size is 3, and of the model num_key_value_heads is 2: it must be at "
              "most that, or a multiple of it (each kv head is then held by several ranks).\n  tp "
              "sizes that work for this model: 1, 2, 4, 6, 8, 10, 12, 14. Set parallel.tp_size to "
              "one of them."});
  CHECK(tp_problems(4, 2, 6) ==
        Texts{"parallel.tp_size is 6, and of the model num_attention_heads is 4: it must be at "
              "most that.\n  tp sizes that work for this model: 1, 2, 4. Set parallel.tp_size to "
              "one of them."});
  CHECK(tp_problems(4, 2, 64) ==
        Texts{"parallel.tp_size is 64, and of the model num_attention_heads is 4: it must be at "
              "most that.\n  tp sizes that work for this model: 1, 2, 4. Set parallel.tp_size to "
              "one of them.",
              "parallel.tp_size is 64, and of the model intermediate_size is 48: it must be at "
              "most that.\n  tp sizes that work for this model: 1, 2, 4. Set parallel.tp_size to "
              "one of them."});
  CHECK(tp_problems(4, 2, 100).size() == 3);  // the vocabulary of 96 as well
  CHECK(tp_problems(4, 2, 100)[2].find("of the model vocab_size is 96: it must be at most that.") !=
        std::string::npos);
  CHECK(tp_problems(4, 2, 0) == Texts{"parallel.tp_size is 0: it must be at least 1."});
}

TEST_CASE("operations per token are six per linear element and causal attention") {
  const DecoderConfig config = decoder_config_from_json("{" + kLlama + "}", "config.json");
  // Per layer q, k, v, o of 32 x 32 and three of 32 x 48; the head 96 x 32.
  const double linears = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 96 * 32;
  CHECK(model::flops_per_token(config, 10) == 6 * linears + 6.0 * 2 * 32 * 10);
  // Besides: the embedding's table, two norms a layer, the last norm.
  CHECK(model::parameter_count(config) == static_cast<int64_t>(linears) + 96 * 32 + 5 * 32);
}

}  // namespace
}  // namespace tptrain::testing
