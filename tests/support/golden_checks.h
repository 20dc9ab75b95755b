// What transformers and PEFT computed against what the ranks of a session compute: logits, loss and
// gradients. For tests under mpirun; collective over all ranks.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "comm/device_mesh.h"
#include "model/kv_cache.h"
#include "parameters/parameter_store.h"
#include "support/catch.h"
#include "support/golden.h"
#include "support/mpi.h"
#include "support/training.h"
#include "train/engine.h"

namespace tptrain::testing {

inline constexpr double kLargestLogitError = 1e-4;

/// Every tp x dp of the ranks that the model allows.
inline std::vector<comm::MeshShape> layouts_for(const model::DecoderConfig& config) {
  std::vector<comm::MeshShape> found;
  for (int tp = 1; tp <= session().size(); ++tp) {
    if (session().size() % tp != 0 || !model::check_tp_size(config, tp).empty()) continue;
    found.push_back({.dp_size = session().size() / tp, .tp_size = tp});
  }
  return found;
}

inline at::Tensor golden_tokens(const GoldenNumbers& golden) {  // [B, T]
  return at::tensor(golden.integers("input_ids"), at::kLong).view(golden.shape("input_ids"));
}

/// Largest difference to the golden logits, the model over tp alone. A prompt of five tokens at
/// once, then one by one: the cache must not change the numbers.
inline double worst_logits(const GoldenNumbers& golden, const model::DecoderConfig& config,
                           const model::TrainingOptions& options,
                           const sharding::TensorSource& source) {
  comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = session().size()},
                        comm::DeviceType::cpu);
  model::Decoder decoder(config, mesh.tp(), options);
  parameters::ParameterStore store(parameters::whole_layout(decoder.blocks()), {});
  parameters::load_parameters(store.values(), source);
  const at::Tensor ids = golden_tokens(golden).t().contiguous();  // [T, B]
  const at::Tensor expected =
      at::tensor(golden.floats("logits"), at::kFloat).view(golden.shape("logits"));  // [B, T, V]
  const auto cache = decoder.make_cache(ids.size(1), ids.size(0));
  double worst = 0;
  for (int64_t begin = 0, end = 5; begin < ids.size(0); begin = end, end = begin + 1) {
    const at::Tensor logits =
        decoder.next_token_logits(ids.narrow(0, begin, end - begin).contiguous(), *cache);
    worst = std::max(worst, (logits - expected.select(1, end - 1)).abs().max().item<double>());
  }
  return worst;
}

/// Loss and gradients of the first golden batch: within 1e-5, of a gradient's largest element.
inline void check_golden_gradients(const GoldenNumbers& golden, const model::DecoderConfig& config,
                                   const model::TrainingOptions& options,
                                   const sharding::StoredModel& stored,
                                   const sharding::TensorSource& source, comm::MeshShape shape) {
  comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
  train::Engine engine(
      {.decoder = config, .training = options, .zero = {.zero_stage = shape.dp_size > 1 ? 3 : 1}},
      mesh.tp(), mesh.dp(), at::kCPU);
  engine.state().load_parameters(source);

  const at::Tensor ids = golden_tokens(golden);
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
      as_stored(stored, assemble(session(), engine.state().gradient_pieces(), sharding::kMaster));
  mesh.dp().all_reduce(losses, comm::ReduceOp::sum);

  CHECK(std::abs(losses[0].item<double>() - golden.floats("loss")[0]) <= 1e-5);
  CHECK(!gradients.empty());
  for (const auto& [name, gradient] : gradients) {
    CAPTURE(name);
    const at::Tensor expected = at::tensor(golden.floats("grad." + name), at::kFloat);
    const at::Tensor received = at::tensor(gradient, at::kFloat);
    REQUIRE(received.numel() == expected.numel());
    const double largest = expected.abs().max().item<double>();
    CHECK((received - expected).abs().max().item<double>() <= 1e-5 * largest);
  }
}

}  // namespace tptrain::testing
