// What follows from a decoder's sizes alone: the tp sizes that work, parameters, operations.
#include <string>

#include "base/text.h"
#include "model/decoder_config.h"
#include "model/families/family.h"
#include "sharding/shard_spec.h"

namespace tptrain::model {

namespace {

// What a tp size breaks, in the words of a Problem; empty where it works.
struct Broken {
  std::string received;
  std::string constraint;
};

std::vector<Broken> broken_by(const DecoderConfig& config, int64_t tp) {
  std::vector<Broken> all;
  const int64_t heads = config.num_attention_heads;
  const int64_t kv = config.num_key_value_heads;
  if (tp > kv && (kv == 0 || tp % kv != 0)) {
    all.push_back({cat("num_key_value_heads is ", kv),
                   "be at most that, or a multiple of it (each kv head is then held by several "
                   "ranks)"});
  } else if (tp > heads) {
    all.push_back({cat("num_attention_heads is ", heads), "be at most that"});
  }
  if (config.intermediate_size < tp)
    all.push_back({cat("intermediate_size is ", config.intermediate_size), "be at most that"});
  if (config.vocab_size < tp)
    all.push_back({cat("vocab_size is ", config.vocab_size), "be at most that"});
  return all;
}

// Multiply-adds per token: the elements of every matrix that a token is multiplied with.
int64_t linear_elements(const DecoderConfig& config) {
  const int64_t q_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  const int64_t attention = config.hidden_size * (2 * q_width + 2 * kv_width);
  const int64_t matrices = config.feed_forward == FeedForward::swiglu ? 3 : 2;
  const int64_t mlp = matrices * config.hidden_size * config.intermediate_size;
  return config.num_hidden_layers * (attention + mlp) + config.vocab_size * config.hidden_size;
}

}  // namespace

std::vector<int64_t> working_tp_sizes(const DecoderConfig& config, int64_t limit) {
  std::vector<int64_t> sizes;
  for (int64_t tp = 1; tp <= limit; ++tp) {
    if (broken_by(config, tp).empty()) sizes.push_back(tp);
  }
  return sizes;
}

std::vector<Problem> check_tp_size(const DecoderConfig& config, int64_t tp_size) {
  if (tp_size < 1) return {problem(cat("parallel.tp_size is ", tp_size)).must("be at least 1")};
  std::vector<Problem> problems;
  for (const Broken& broken : broken_by(config, tp_size)) {
    problems.push_back(
        problem(cat("parallel.tp_size is ", tp_size, ", and of the model ", broken.received))
            .must(broken.constraint)
            .remedy(cat("tp sizes that work for this model: ", join(working_tp_sizes(config)),
                        ". Set parallel.tp_size to one of them.")));
  }
  return problems;
}

std::vector<Problem> check_seq_length(const DecoderConfig& config, int64_t seq_length,
                                      const std::string& name) {
  std::vector<Problem> problems;
  if (config.positions == Positions::learned && seq_length > config.max_position_embeddings) {
    problems.push_back(
        problem(cat(name, " is ", seq_length, ", and the model's max_position_embeddings is ",
                    config.max_position_embeddings))
            .must("be at most that")
            .remedy("Positions are learned: there are no embeddings of later ones."));
  }
  if (config.sliding_window > 0 && seq_length > config.sliding_window) {
    problems.push_back(
        problem(cat(name, " is ", seq_length, ", and the model's sliding_window is ",
                    config.sliding_window))
            .must("be at most that")
            .remedy("Sliding windows are not built: up to that length the model has none."));
  }
  return problems;
}

int64_t parameter_count(const DecoderConfig& config) {
  int64_t count = 0;
  for (const sharding::StoredTensor& tensor : stored_model(config).tensors)
    count += sharding::whole_tensor(tensor.name, tensor.shape).global_numel();
  return count;
}

double flops_per_token(const DecoderConfig& config, int64_t seq_length) {
  const double linears = 6.0 * static_cast<double>(linear_elements(config));
  const double attention = 6.0 * static_cast<double>(config.num_hidden_layers) *
                           static_cast<double>(config.num_attention_heads * config.head_dim) *
                           static_cast<double>(seq_length);
  return linears + attention;
}

}  // namespace tptrain::model
