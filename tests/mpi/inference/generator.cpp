// The same parameters give the same ids on every tp size: the MPI ranks as the tp axis against one
// rank alone.
#include "inference/generator.h"

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "base/text.h"
#include "comm/device_mesh.h"
#include "model/kv_cache.h"
#include "parameters/parameter_store.h"
#include "support/catch.h"
#include "support/initial_source.h"
#include "support/mpi.h"

namespace tptrain::inference {
namespace {

using testing::session;

model::DecoderConfig tiny() {
  return {.model_type = "qwen2",
          .vocab_size = 263,  // divides by nothing
          .hidden_size = 32,
          .intermediate_size = 53,
          .num_hidden_layers = 2,
          .num_attention_heads = 14,
          .num_key_value_heads = 2,  // on 4 ranks each is held twice
          .head_dim = 8,
          .tie_word_embeddings = true,
          .qkv_bias = true};
}

std::vector<int32_t> ids_on(comm::Communicator& tp, const SamplingOptions& options) {
  model::Decoder decoder(tiny(), tp);
  parameters::ParameterStore store(parameters::whole_layout(decoder.blocks()), {});
  parameters::load_parameters(store.values(), testing::InitialSource(/*seed=*/5, /*std=*/0.3));
  return generate(decoder, {72, 101, 108, 108, 111}, /*stop_ids=*/{}, options, at::kCPU,
                  [](int32_t) {});
}

void check_all_layouts(const SamplingOptions& options) {
  const auto alone = comm::single_rank_communicator("tp");
  const std::vector<int32_t> reference = ids_on(*alone, options);
  comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = session().size()},
                        comm::DeviceType::cpu);
  const std::vector<int32_t> ids = ids_on(mesh.tp(), options);
  CHECK(ids.size() == static_cast<size_t>(options.max_new_tokens));
  CHECK(ids == reference);
  const std::vector<std::string> of_ranks = session().all_gather(join(ids));
  for (const std::string& other : of_ranks) CHECK(other == of_ranks[0]);
}

TEST_CASE("greedy ids are the same on every tp size", "[inference]") {
  check_all_layouts({.max_new_tokens = 40});
}

TEST_CASE("sampled ids are the same on every tp size", "[inference]") {
  check_all_layouts({.max_new_tokens = 40, .temperature = 1.0, .seed = 3});
  check_all_layouts(
      {.max_new_tokens = 40, .temperature = 0.8, .top_k = 50, .top_p = 0.9, .seed = 4});
}

}  // namespace
}  // namespace tptrain::inference
