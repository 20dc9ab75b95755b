// Against transformers, in process: logits, loss and every gradient of the golden models, read from
// their Hugging Face files, on every tp and dp of the ranks. (Whole trainings through the program:
// tests/e2e/train/golden.cpp.)
#include "support/golden.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "checkpoint/huggingface_source.h"
#include "comm/device_mesh.h"
#include "model/kv_cache.h"
#include "parameters/parameter_store.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "support/training.h"
#include "train/engine.h"

namespace tptrain::testing {
namespace {

/// Every tp x dp of the ranks that the model allows.
std::vector<comm::MeshShape> layouts(const model::DecoderConfig& config) {
  std::vector<comm::MeshShape> found;
  for (int tp = 1; tp <= session().size(); ++tp) {
    if (session().size() % tp != 0 || !model::check_tp_size(config, tp).empty()) continue;
    found.push_back({.dp_size = session().size() / tp, .tp_size = tp});
  }
  return found;
}

at::Tensor tokens(const GoldenModel& golden) {  // [B, T]
  const std::vector<int64_t> ids = golden.integers("input_ids");
  return at::tensor(ids, at::kLong).view(golden.shape("input_ids"));
}

double largest(const std::vector<float>& values) {
  double found = 0;
  for (const float value : values) found = std::max(found, std::abs(static_cast<double>(value)));
  return found;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double found = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    found = std::isnan(difference) ? INFINITY : std::max(found, difference);
  }
  return found;
}

}  // namespace

TEST_CASE("logits of the golden models are those of transformers", "[golden]") {
  at::set_num_threads(1);
  for (const auto& directory : golden_directories(TPTRAIN_GOLDEN_MODELS)) {
    const GoldenModel golden(directory);
    CAPTURE(golden.name());
    if (!model::check_tp_size(golden.config(), session().size()).empty()) continue;
    comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = session().size()},
                          comm::DeviceType::cpu);
    model::Decoder decoder(golden.config(), mesh.tp());
    parameters::ParameterStore store(parameters::whole_layout(decoder.blocks()), {});
    parameters::load_parameters(store.values(),
                                checkpoint::HuggingFaceSource(directory, golden.stored()));

    const at::Tensor ids = tokens(golden).t().contiguous();  // [T, B]
    const at::Tensor expected =
        at::tensor(golden.floats("logits"), at::kFloat).view(golden.shape("logits"));  // [B, T, V]
    const auto cache = decoder.make_cache(ids.size(1), ids.size(0));
    // A prompt of five tokens at once, then one by one: the cache must not change the numbers.
    double worst = 0;
    for (int64_t begin = 0, end = 5; begin < ids.size(0); begin = end, end = begin + 1) {
      const at::Tensor logits =
          decoder.next_token_logits(ids.narrow(0, begin, end - begin).contiguous(), *cache);
      worst = std::max(worst, (logits - expected.select(1, end - 1)).abs().max().item<double>());
    }
    CHECK(worst <= 1e-4);
  }
}

TEST_CASE("loss and gradients of the golden models are those of transformers", "[golden]") {
  at::set_num_threads(1);
  for (const auto& directory : golden_directories(TPTRAIN_GOLDEN_MODELS)) {
    const GoldenModel golden(directory);
    for (const comm::MeshShape shape : layouts(golden.config())) {
      CAPTURE(golden.name(), shape.tp_size, shape.dp_size);
      comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
      train::Engine engine(
          {.decoder = golden.config(),
           .training = {.sequence_parallel = tensor_parallel::SequenceParallel::on},
           .zero = {.zero_stage = shape.dp_size > 1 ? 3 : 1}},
          mesh.tp(), mesh.dp(), at::kCPU);
      engine.state().load_parameters(checkpoint::HuggingFaceSource(directory, golden.stored()));

      const at::Tensor ids = tokens(golden);
      const int64_t rows = ids.size(0) / shape.dp_size;
      const at::Tensor own = ids.narrow(0, mesh.dp_rank() * rows, rows).t().contiguous();
      at::Tensor targets = at::full_like(own, -100);  // [T, B]
      targets.narrow(0, 0, own.size(0) - 1).copy_(own.narrow(0, 1, own.size(0) - 1));
      const int64_t target_tokens = ids.size(0) * (ids.size(1) - 1);

      engine.zero().begin_step();
      at::Tensor losses = engine.decoder().forward_backward(
          {.ids = own, .targets = targets},
          at::full({}, 1.0 / static_cast<double>(target_tokens), at::kFloat), engine.zero());
      engine.zero().finish_reduction();
      const auto gradients =
          as_stored(golden.stored(),
                    assemble(session(), engine.state().gradient_pieces(), sharding::kMaster));
      mesh.dp().all_reduce(losses, comm::ReduceOp::sum);

      CHECK(std::abs(losses[0].item<double>() - golden.floats("loss")[0]) <= 1e-5);
      for (const auto& [name, gradient] : gradients) {
        const std::vector<float> expected = golden.floats("grad." + name);
        CAPTURE(name);
        CHECK(largest_difference(gradient, expected) <= 1e-5 * largest(expected));
      }
    }
  }
}

}  // namespace tptrain::testing
