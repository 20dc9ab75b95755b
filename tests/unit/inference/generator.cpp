// Generation with the cache against the whole sequence run anew for each token, on one rank with
// random parameters.
#include "inference/generator.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/communicator.h"
#include "model/kv_cache.h"
#include "parameters/parameter_store.h"
#include "support/catch.h"
#include "support/initial_source.h"

namespace tptrain::inference {
namespace {

constexpr int32_t kEndOfText = 256;
constexpr int32_t kNone = -1;  // no id is the end

model::DecoderConfig tiny() {
  return {.model_type = "llama",
          .vocab_size = 260,
          .hidden_size = 32,
          .intermediate_size = 64,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 8};
}

struct Fixture {
  Fixture() {
    at::set_num_threads(1);
    parameters::load_parameters(store.values(), testing::InitialSource(/*seed=*/3, /*std=*/0.3));
  }
  std::unique_ptr<comm::Communicator> tp = comm::single_rank_communicator("tp");
  model::Decoder decoder{tiny(), *tp};
  parameters::ParameterStore store{parameters::whole_layout(decoder.blocks()), {}};

  std::vector<int32_t> run(const std::vector<int32_t>& prompt, const SamplingOptions& options,
                           int32_t end = kNone) {
    return generate(decoder, prompt, std::vector<int32_t>{end}, options, at::kCPU, [](int32_t) {});
  }
  /// The argmax after each prefix, each prefix run from its beginning.
  std::vector<int32_t> by_whole_forward(std::vector<int32_t> text, int64_t tokens) {
    std::vector<int32_t> out;
    for (int64_t i = 0; i < tokens; ++i) {
      const std::vector<int64_t> wide(text.begin(), text.end());
      const auto cache = decoder.make_cache(1, static_cast<int64_t>(text.size()));
      const at::Tensor logits =
          decoder.next_token_logits(at::tensor(wide, at::kLong).view({-1, 1}), *cache);
      out.push_back(static_cast<int32_t>(logits.argmax().item<int64_t>()));
      text.push_back(out.back());
    }
    return out;
  }
};

std::string refusal(Fixture& fixture, const std::vector<int32_t>& prompt,
                    const SamplingOptions& options = {}) {
  try {
    fixture.run(prompt, options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

TEST_CASE("greedy with the cache gives the ids of the whole forward repeated", "[inference]") {
  Fixture fixture;
  for (const std::vector<int32_t>& prompt : {std::vector<int32_t>{65}, {72, 101, 108, 108, 111}}) {
    const auto ids = fixture.run(prompt, {.max_new_tokens = 40});
    REQUIRE(ids.size() == 40);
    CHECK(ids == fixture.by_whole_forward(prompt, 40));
  }
}

TEST_CASE("generation ends before the end-of-text id", "[inference]") {
  Fixture fixture;
  const auto free = fixture.run({65, 66}, {.max_new_tokens = 30});
  // Some id of the free text taken as the end: what came before its first occurrence is left.
  const int32_t end = free[12];
  const size_t first = static_cast<size_t>(std::find(free.begin(), free.end(), end) - free.begin());
  const auto ended = fixture.run({65, 66}, {.max_new_tokens = 30}, end);
  CHECK(ended ==
        std::vector<int32_t>(free.begin(), free.begin() + static_cast<std::ptrdiff_t>(first)));
}

TEST_CASE("every id is emitted as it comes, in order", "[inference]") {
  Fixture fixture;
  std::vector<int32_t> emitted;
  const auto ids =
      generate(fixture.decoder, {65}, std::vector<int32_t>{kEndOfText}, {.max_new_tokens = 8},
               at::kCPU, [&](int32_t id) { emitted.push_back(id); });
  CHECK(emitted == ids);
}

TEST_CASE("sampling gives the same ids for a seed and others for another", "[inference]") {
  Fixture fixture;
  const SamplingOptions options = {.max_new_tokens = 30, .temperature = 1.5, .seed = 7};
  SamplingOptions other = options;
  other.seed = 8;
  CHECK(fixture.run({65}, options) == fixture.run({65}, options));
  CHECK(fixture.run({65}, options) != fixture.run({65}, other));
  // Continuing a text draws what writing it in one go drew: the key is the position in the text.
  const auto whole = fixture.run({65}, options);
  std::vector<int32_t> head = {65};
  head.insert(head.end(), whole.begin(), whole.begin() + 10);
  SamplingOptions rest = options;
  rest.max_new_tokens = 20;
  CHECK(fixture.run(head, rest) == std::vector<int32_t>(whole.begin() + 10, whole.end()));
}

TEST_CASE("one new token needs no second forward", "[inference]") {
  Fixture fixture;
  CHECK(fixture.run({65, 66, 67}, {.max_new_tokens = 1}) ==
        fixture.by_whole_forward({65, 66, 67}, 1));
}

TEST_CASE("an empty prompt and ids outside the vocabulary are refused", "[inference]") {
  Fixture fixture;
  CHECK(refusal(fixture, {}) ==
        "config error: the prompt is empty: it must hold at least one token, as the model "
        "continues text.\n"
        "  Give some text to continue.");
  CHECK(
      refusal(fixture, {65, 260}) ==
      "config error: token 1 of the prompt is 260: it must be below the model's vocab_size, 260.\n"
      "  Use the tokenizer that the model was trained with.");
  CHECK(refusal(fixture, {-1}).find("token 0 of the prompt is -1") != std::string::npos);
  CHECK(refusal(fixture, {65}, {.max_new_tokens = 0}).find("max_new_tokens is 0") !=
        std::string::npos);
}

}  // namespace
}  // namespace tptrain::inference
