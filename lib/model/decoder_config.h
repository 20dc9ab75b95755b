// The shape of the one decoder, in the field's names, and where it comes from: the `architecture`
// section or a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"

namespace tptrain::model {

enum class Norm {
  rms,    // RMSNorm, a weight
  layer,  // LayerNorm, a weight and a bias
};
enum class FeedForward {
  swiglu,  // down(silu(gate(x)) * up(x))
  gelu,    // down(gelu(up(x))), the tanh form
};
enum class Positions {
  rotary,
  learned,  // a table [max_position_embeddings, H], added to the embedding
};
struct RotaryScaling {
  enum class Kind { none, linear, llama3 } kind = Kind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;  // of llama3, and so on
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 0;

  bool operator==(const RotaryScaling&) const = default;
};

struct DecoderConfig {
  std::string model_type = "llama";
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  // Rows of the table where positions are learned; else what the model was trained for, 0: not
  // said.
  int64_t max_position_embeddings = 0;
  double norm_eps = 1e-6;
  Norm norm = Norm::rms;
  FeedForward feed_forward = FeedForward::swiglu;
  Positions positions = Positions::rotary;
  double rope_theta = 10000.0;
  RotaryScaling rope_scaling = {};
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm of each head of q and k before rotation, weights [head_dim]
  // Positions that attention looks back on, itself included; 0: all. Longer sequences are refused
  // (check_seq_length): there is no windowed attention.
  int64_t sliding_window = 0;
  double initializer_range = 0.02;
  // What config.json asks of training. Not followed: the run file's train.attention_dropout counts.
  double attention_dropout = 0.0;

  bool operator==(const DecoderConfig&) const = default;
};

/// Throws ConfigError where `path` is no directory with a config.json, or holds an adapter, which
/// transformers would put on a base model from elsewhere. For before anything of it is read.
void check_model_directory(const std::string& path);

/// From the run file. `tokenizer_vocab_size` fills a vocab_size left out, and is refused where an
/// `architecture` has fewer; a finished model may have fewer. Throws ConfigError with all problems.
/// Whether a tied head is one also in the weights is not looked at: decide_model does.
DecoderConfig decoder_config(const config::ModelConfig& model, int64_t tokenizer_vocab_size);
/// From the text of a config.json (`name` for messages), in the keys of transformers 4 or 5;
/// anything the decoder does not support is refused by name.
DecoderConfig decoder_config_from_json(const std::string& json_text, const std::string& name);
/// The same keys as a config.json, for the manifest; decoder_config_from_json reads it back to an
/// equal value.
std::string to_json(const DecoderConfig& config);

/// What of the model a tp size does not allow, each problem naming the sizes that work; empty where
/// all is well. Works: up to as many ranks as kv heads, or a multiple of the kv heads that leaves
/// every rank a query head; feed-forward and vocabulary need not divide.
std::vector<Problem> check_tp_size(const DecoderConfig& config, int64_t tp_size);
/// The tp sizes up to `limit` that check_tp_size accepts.
std::vector<int64_t> working_tp_sizes(const DecoderConfig& config, int64_t limit = 64);

/// What of the model a sequence of this many tokens does not allow: more positions than were
/// learned, or more than a sliding window holds. `name` is what the message says it is.
std::vector<Problem> check_seq_length(const DecoderConfig& config, int64_t seq_length,
                                      const std::string& name = "train.seq_length");

/// Number of elements of all global tensors, a tied head once.
int64_t parameter_count(const DecoderConfig& config);
/// Forward + backward floating point operations per token: 6 * (parameters of linears, head
/// included, embedding look-up not) + 6 * layers * heads * head_dim * seq_length (causal attention:
/// half of the 12 of full attention). Source: Chowdhery et al., PaLM, 2022, appendix B, with the
/// causal half.
double flops_per_token(const DecoderConfig& config, int64_t seq_length);

}  // namespace tptrain::model
