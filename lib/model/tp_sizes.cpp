// What follows from a decoder's sizes alone: the tp sizes that work, parameters, operations.
#include <string>
#include <utility>

#include "base/text.h"
#include "model/decoder_config.h"

namespace tptrain::model {

namespace {

using NamedSize = std::pair<const char*, int64_t>;

// Everything that is cut over tp; each rank takes an equal share.
std::vector<NamedSize> cut_sizes(const DecoderConfig& config) {
  return {{"num_attention_heads", config.num_attention_heads},
          {"num_key_value_heads", config.num_key_value_heads},
          {"intermediate_size", config.intermediate_size},
          {"vocab_size", config.vocab_size}};
}

// Multiply-adds per token: the elements of every matrix that a token is multiplied with.
int64_t linear_elements(const DecoderConfig& config) {
  const int64_t q_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  const int64_t attention = config.hidden_size * (2 * q_width + 2 * kv_width);
  const int64_t mlp = 3 * config.hidden_size * config.intermediate_size;
  return config.num_hidden_layers * (attention + mlp) + config.vocab_size * config.hidden_size;
}

}  // namespace

std::vector<int64_t> working_tp_sizes(const DecoderConfig& config, int64_t limit) {
  std::vector<int64_t> sizes;
  for (int64_t tp = 1; tp <= limit; ++tp) {
    bool divides = true;
    for (const auto& [name, size] : cut_sizes(config)) divides = divides && size % tp == 0;
    if (divides) sizes.push_back(tp);
  }
  return sizes;
}

std::vector<Problem> check_tp_size(const DecoderConfig& config, int64_t tp_size) {
  std::vector<Problem> problems;
  for (const auto& [name, size] : cut_sizes(config)) {
    if (tp_size > 0 && size % tp_size == 0) continue;
    problems.push_back(
        problem(cat("parallel.tp_size is ", tp_size, ", and the model's ", name, " is ", size))
            .must(cat("divide ", name))
            .remedy(cat("tp sizes that work for this model: ", join(working_tp_sizes(config)),
                        ". Set parallel.tp_size to one of them.")));
  }
  return problems;
}

int64_t parameter_count(const DecoderConfig& config) {
  const int64_t q_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  const int64_t biases =
      (config.qkv_bias ? q_width + 2 * kv_width : 0) + (config.o_bias ? config.hidden_size : 0);
  const int64_t norms = 2 * config.num_hidden_layers * config.hidden_size + config.hidden_size;
  // The head's matrix is among the linears; tied, it is the embedding's table as well.
  const int64_t table = config.tie_word_embeddings ? 0 : config.vocab_size * config.hidden_size;
  return linear_elements(config) + config.num_hidden_layers * biases + norms + table;
}

double flops_per_token(const DecoderConfig& config, int64_t seq_length) {
  const double linears = 6.0 * static_cast<double>(linear_elements(config));
  const double attention = 6.0 * static_cast<double>(config.num_hidden_layers) *
                           static_cast<double>(config.num_attention_heads * config.head_dim) *
                           static_cast<double>(seq_length);
  return linears + attention;
}

}  // namespace tptrain::model
