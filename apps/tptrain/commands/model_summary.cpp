#include "commands/model_summary.h"

#include <string>

#include "base/text.h"
#include "model/families/family.h"

namespace tptrain::apps {
namespace {

std::string attention_of(const model::DecoderConfig& config) {
  std::string text = cat(config.num_attention_heads, " heads of ", config.head_dim);
  if (config.num_key_value_heads != config.num_attention_heads)
    text += cat(" on ", config.num_key_value_heads, " of keys and values");
  if (config.qkv_bias) text += config.o_bias ? ", with biases" : ", with biases of q, k and v";
  if (config.qk_norm) text += ", q and k normalised";
  if (config.sliding_window > 0)
    text += cat(", looking back on ", with_thousands(config.sliding_window));
  return text;
}

std::string positions_of(const model::DecoderConfig& config) {
  const std::string most = config.max_position_embeddings > 0
                               ? cat("up to ", with_thousands(config.max_position_embeddings))
                               : std::string("no bound said");
  if (config.positions == model::Positions::learned) return cat(most, ", learned");
  std::string text = cat(most, ", rotary, theta ", config.rope_theta);
  using Kind = model::RotaryScaling::Kind;
  if (config.rope_scaling.kind != Kind::none) {
    text += cat(config.rope_scaling.kind == Kind::linear ? ", linear" : ", llama3", " scaling by ",
                config.rope_scaling.factor);
  }
  return text;
}

}  // namespace

std::vector<Line> model_summary(const model::DecoderConfig& config) {
  const bool swiglu = config.feed_forward == model::FeedForward::swiglu;
  return {
      {"model",
       cat(config.model_type, ", ", with_thousands(model::parameter_count(config)), " parameters")},
      {"layers", cat(config.num_hidden_layers, " of width ", with_thousands(config.hidden_size),
                     ", feed-forward ", with_thousands(config.intermediate_size),
                     swiglu ? " (SwiGLU)" : " (GELU)",
                     config.norm == model::Norm::rms ? ", RMSNorm" : ", LayerNorm")},
      {"attention", attention_of(config)},
      {"vocabulary", cat(with_thousands(config.vocab_size), config.tie_word_embeddings
                                                                ? ", the head is the embedding"
                                                                : ", with a head of its own")},
      {"positions", positions_of(config)},
  };
}

}  // namespace tptrain::apps
