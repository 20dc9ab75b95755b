// The decoder on one rank against the reference, the observer's order of calls, and what the
// decoder declares of its parameters.
#include "model/decoder.h"

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "support/catch.h"
#include "support/decoder_checks.h"
#include "support/reference_decoder.h"

namespace tptrain::testing {
namespace {

using model::Decoder;
using model::DecoderConfig;

DecoderConfig tiny(bool tied) {
  DecoderConfig config;
  config.vocab_size = 16;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 4;
  config.tie_word_embeddings = tied;
  return config;
}

class Recorder final : public tensor_parallel::BlockObserver {
 public:
  explicit Recorder(const Decoder& decoder) : decoder_(decoder) {}
  void before_forward(int block) override { calls.push_back(cat(">f", block)); }
  void after_forward(int block) override { calls.push_back(cat("<f", block)); }
  void before_backward(int block) override {
    calls.push_back(cat(">b", block));
    for (const parameters::Parameter* parameter : decoder_.blocks()[block].parameters) {
      // The head adds to a tied table, which is the embedding's, before that block's own turn.
      const bool shared = block == 0 && decoder_.config().tie_word_embeddings;
      if (!shared && any(*parameter)) wrong.push_back(cat(parameter->name, " before its block"));
    }
  }
  void after_backward(int block) override {
    calls.push_back(cat("<b", block));
    for (const parameters::Parameter* parameter : decoder_.blocks()[block].parameters) {
      if (!any(*parameter)) wrong.push_back(cat(parameter->name, " after its block"));
    }
  }

  std::vector<std::string> calls;
  std::vector<std::string> wrong;

 private:
  static bool any(const parameters::Parameter& parameter) {
    return parameter.main_grad.abs().sum().item<float>() > 0;
  }
  const Decoder& decoder_;
};

TEST_CASE("the decoder's loss and gradients equal the reference's on one rank") {
  check_decoder_against_reference(*comm::single_rank_communicator("tp"));
}

TEST_CASE("micro-batches add up on one rank") {
  check_gradients_accumulate(*comm::single_rank_communicator("tp"));
}

TEST_CASE("every sequence length works on one rank") {
  check_sequence_lengths(*comm::single_rank_communicator("tp"));
}

TEST_CASE("packed documents train as each alone does, on one rank") {
  check_documents_against_reference(*comm::single_rank_communicator("tp"));
}

TEST_CASE("documents that the decoder cannot do are refused") {
  check_document_errors(*comm::single_rank_communicator("tp"));
}

TEST_CASE("generation equals the full forward for every chunking on one rank") {
  check_generation_against_reference(*comm::single_rank_communicator("tp"));
}

TEST_CASE("dropout depends on seed, step and sample alone; evaluation has none") {
  check_dropout_numbers(*comm::single_rank_communicator("tp"));
}

TEST_CASE("dropout and recompute go together") {
  check_dropout_over_layouts(*comm::single_rank_communicator("tp"));
}

TEST_CASE("with dropout the gradient is the slope of the loss") { check_dropout_gradient(); }

TEST_CASE("evaluation gives the same losses and leaves gradients alone") {
  check_evaluation(*comm::single_rank_communicator("tp"));
}

TEST_CASE("the observer sees blocks in order, gradients complete in between and not before") {
  for (const bool tied : {false, true}) {
    CAPTURE(tied);
    const auto tp = comm::single_rank_communicator("tp");
    Decoder decoder(tiny(tied), *tp);
    bind_parameters(decoder.parameters(), noisy_weights(tiny(tied), 1));
    Recorder recorder(decoder);
    const at::Tensor ids = at::arange(10, at::kLong).view({5, 2});
    const std::vector<std::string> forward = {">f0", "<f0", ">f1", "<f1",
                                              ">f2", "<f2", ">f3", "<f3"};
    decoder.evaluate({.ids = ids, .targets = ids}, at::scalar_tensor(0.1, at::kFloat), recorder);
    CHECK(recorder.calls == forward);
    recorder.calls.clear();

    decoder.forward_backward({.ids = ids, .targets = ids}, at::scalar_tensor(0.1, at::kFloat),
                             recorder);
    std::vector<std::string> both = forward;
    for (const char* call : {">b3", "<b3", ">b2", "<b2", ">b1", "<b1", ">b0", "<b0"})
      both.push_back(call);
    CHECK(recorder.calls == both);
    CHECK(recorder.wrong == std::vector<std::string>{});
  }
}

TEST_CASE("an all-ignored batch has losses zero and gradients zero") {
  const auto tp = comm::single_rank_communicator("tp");
  Decoder decoder(tiny(false), *tp, {.z_loss = 0.1});
  bind_parameters(decoder.parameters(), noisy_weights(tiny(false), 1));
  Recorder recorder(decoder);
  const at::Tensor ids = at::arange(10, at::kLong).view({5, 2});
  const at::Tensor losses =
      decoder.forward_backward({.ids = ids, .targets = at::full_like(ids, -100)},
                               at::scalar_tensor(0.1, at::kFloat), recorder);
  CHECK(at::equal(losses, at::zeros({2})));
  for (const parameters::Parameter* parameter : decoder.parameters()) {
    CAPTURE(parameter->name);
    CHECK(at::count_nonzero(parameter->main_grad).item<int64_t>() == 0);
  }
}

TEST_CASE("blocks are embedding, layers, head; a tied table stands in the first alone") {
  const auto tp = comm::planning_communicator("tp", /*rank=*/0, /*size=*/1);
  const Decoder untied(tiny(false), *tp);
  std::vector<std::string> names;
  for (const parameters::ParameterBlock& block : untied.blocks()) names.push_back(block.name);
  CHECK(names == std::vector<std::string>{"embedding", "layer 0", "layer 1", "head"});
  REQUIRE(untied.blocks()[3].parameters.size() == 2);
  CHECK(untied.blocks()[3].parameters[1]->name == "lm_head.weight");

  const Decoder tied(tiny(true), *tp);
  CHECK(tied.blocks()[0].parameters[0]->name == "model.embed_tokens.weight");
  CHECK(tied.blocks()[3].parameters.size() == 1);
  CHECK(untied.blocks()[3].also_uses == -1);
  CHECK(tied.blocks()[3].also_uses == 0);
  CHECK_FALSE(tied.blocks()[0].backward_reads_data);  // the head's backward does, in its own block
  CHECK(tied.blocks()[3].backward_reads_data);
}

TEST_CASE("replicated gradients are partial where the sequence is sliced, whole elsewhere") {
  DecoderConfig config = tiny(false);
  config.o_bias = true;
  for (const bool sliced : {false, true}) {
    const auto tp = comm::planning_communicator("tp", /*rank=*/1, /*size=*/2);
    const Decoder decoder(config, *tp,
                          {.sequence_parallel = sliced ? tensor_parallel::SequenceParallel::on
                                                       : tensor_parallel::SequenceParallel::off});
    int replicated = 0;
    for (const parameters::Parameter* parameter : decoder.parameters()) {
      if (parameter->placement != parameters::Placement::tp_replicated) continue;
      CAPTURE(parameter->name, sliced);
      CHECK((parameter->tp_gradient == parameters::TpGradient::partial) == sliced);
      ++replicated;
    }
    CHECK(replicated == 2 * 3 + 1);  // two norms and a bias a layer, the final norm
  }
}

TEST_CASE("gradients of the norms of q and k are partial on every layout of several ranks") {
  DecoderConfig config = tiny(false);
  config.qk_norm = true;
  for (const int tp_size : {1, 2}) {
    const auto tp = comm::planning_communicator("tp", /*rank=*/0, tp_size);
    const Decoder decoder(config, *tp);
    int norms = 0;
    for (const parameters::Parameter* parameter : decoder.parameters()) {
      if (parameter->name.find("self_attn.q_norm") == std::string::npos &&
          parameter->name.find("self_attn.k_norm") == std::string::npos)
        continue;
      CHECK(parameter->shape == std::vector<int64_t>{4});
      CHECK((parameter->tp_gradient == parameters::TpGradient::partial) == (tp_size > 1));
      ++norms;
    }
    CHECK(norms == 2 * 2);
  }
}

TEST_CASE("learned positions stand beside the table, and nothing lies behind their last") {
  DecoderConfig config = tiny(false);
  config.positions = model::Positions::learned;
  config.max_position_embeddings = 4;
  const auto tp = comm::single_rank_communicator("tp");
  Decoder decoder(config, *tp);
  REQUIRE(decoder.blocks()[0].parameters.size() == 2);
  CHECK(decoder.blocks()[0].parameters[1]->name == "model.embed_positions.weight");
  bind_parameters(decoder.parameters(), noisy_weights(config, 1));
  const auto cache = decoder.make_cache(/*batch=*/1, /*max_length=*/8);
  decoder.next_token_logits(at::zeros({3, 1}, at::kLong), *cache);
  CHECK_THROWS_WITH(decoder.next_token_logits(at::zeros({2, 1}, at::kLong), *cache),
                    "internal error: positions 3 to 5 of a table of 4: it must lie within it.\n  "
                    "check_seq_length tells so before a model is built.");
}

TEST_CASE("a layer's parameters stand in order of use, roles told by the layer") {
  const auto tp = comm::planning_communicator("tp", /*rank=*/0, /*size=*/1);
  DecoderConfig config = tiny(false);
  config.qkv_bias = true;
  config.o_bias = true;
  const Decoder decoder(config, *tp);
  std::vector<std::string> found;
  for (const parameters::Parameter* parameter : decoder.blocks()[1].parameters) {
    found.push_back(cat(parameter->name, " ", role_name(parameter->role)));
  }
  const std::string layer = "model.layers.0.";
  CHECK(found == std::vector<std::string>{layer + "input_layernorm.weight replicated",
                                          layer + "self_attn.qkv_proj.weight column-parallel",
                                          layer + "self_attn.qkv_proj.bias column-parallel",
                                          layer + "self_attn.o_proj.weight row-parallel",
                                          layer + "self_attn.o_proj.bias replicated",
                                          layer + "post_attention_layernorm.weight replicated",
                                          layer + "mlp.gate_up_proj.weight column-parallel",
                                          layer + "mlp.down_proj.weight row-parallel"});
}

TEST_CASE("ids that do not fit into the cache are refused") {
  const auto tp = comm::single_rank_communicator("tp");
  Decoder decoder(tiny(false), *tp);
  bind_parameters(decoder.parameters(), noisy_weights(tiny(false), 1));
  const auto cache = decoder.make_cache(/*batch=*/1, /*max_length=*/4);
  decoder.next_token_logits(at::zeros({3, 1}, at::kLong), *cache);
  CHECK_THROWS_WITH(decoder.next_token_logits(at::zeros({2, 1}, at::kLong), *cache),
                    "internal error: ids of 2 positions x 1 sequences behind 3 cached positions, "
                    "for a cache of 4 "
                    "positions x 1 sequences: it must fit into the cache.\n  Make the cache as "
                    "long as prompt and "
                    "continuation together.");
  CHECK_THROWS_AS(decoder.next_token_logits(at::zeros({1, 2}, at::kLong), *cache), InternalError);
  CHECK(cache->length() == 3);
}

}  // namespace
}  // namespace tptrain::testing
