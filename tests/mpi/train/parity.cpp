// The numerics contract over layouts: tp x dp x ZeRO x accumulation x tied against one rank without
// communication, and the faults that must turn it red.
#include <ATen/Parallel.h>

#include <cstdio>
#include <cstring>

#include "base/text.h"
#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/faulty_communicator.h"
#include "support/mpi.h"
#include "support/reference_decoder.h"
#include "support/training.h"

namespace tptrain::testing {
namespace {

std::vector<comm::MeshShape> layouts_of(int world_size) {
  std::vector<comm::MeshShape> layouts;
  for (int tp = 1; tp <= world_size; tp *= 2) {
    if (world_size % tp == 0) layouts.push_back({.dp_size = world_size / tp, .tp_size = tp});
  }
  return layouts;
}

void print_row(const std::string& text) {
  if (session().rank() == 0) std::puts(text.c_str());
}

std::string scientific(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%8.1e", value);
  return buffer;
}

bool bitwise_equal(const GlobalTensors& a, const GlobalTensors& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, values] : a) {
    const auto found = b.find(name);
    if (found == b.end() || found->second.size() != values.size()) return false;
    if (std::memcmp(values.data(), found->second.data(), values.size() * sizeof(float)) != 0)
      return false;
  }
  return true;
}

}  // namespace

TEST_CASE("the one-rank reference has the loss and the gradients of plain ATen autograd",
          "[parity]") {
  at::set_num_threads(1);
  for (const model::DecoderConfig& config : {tiny_llama(), tiny_qwen2()}) {
    const TrainingRun run = train_reference(config, {.steps = 1});
    const data::HostBatch batch = parity_batch(0, 0, kGlobalBatch, config.vocab_size);
    const train::MicroBatch micro = train::to_device(batch, at::kCPU);
    const ReferenceResult plain =
        reference_step(config, initial_weights(config, kSeed), micro.ids, micro.targets,
                       1.0 / static_cast<double>(batch.target_tokens()));
    CHECK(std::abs(run.losses[0] - plain.loss.item<double>()) <= 2e-6 * run.losses[0]);
    REQUIRE(run.first_gradients.size() == plain.gradients.size());
    for (const auto& [name, values] : run.first_gradients) {
      const at::Tensor own = at::from_blob(const_cast<float*>(values.data()),
                                           plain.gradients.at(name).sizes(), at::kFloat);
      CAPTURE(name);
      CHECK(relative_error(own, plain.gradients.at(name)) <= 1e-5);
    }
  }
}

TEST_CASE("every layout trains like one rank", "[parity]") {
  at::set_num_threads(1);
  print_row(
      "| model | tp | dp | ZeRO | accumulation | loss | norm | gradient step 1 | gradient step 20 "
      "|");
  print_row("|---|---|---|---|---|---|---|---|---|");
  for (const model::DecoderConfig& config : {tiny_llama(), tiny_qwen2()}) {
    const TrainingRun reference = train_reference(config, {});
    INFO("the loss must fall by 20 %, or the test proves nothing: "
         << reference.losses.front() << " to " << reference.losses.back());
    REQUIRE(reference.losses.back() <= 0.8 * reference.losses.front());
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
      for (const int zero_stage : {0, 1}) {
        for (const int64_t accumulation : {1, 2}) {
          const TrainingRun run =
              train(config, {.world = session(), .tp = mesh.tp(), .dp = mesh.dp()},
                    {.accumulation = accumulation, .zero_stage = zero_stage});
          const Deviation deviation = compare(run, reference);
          print_row(cat("| ", config.tie_word_embeddings ? "tied, bias" : "untied", " | ",
                        shape.tp_size, " | ", shape.dp_size, " | ", zero_stage, " | ", accumulation,
                        " | ", scientific(deviation.loss), " | ", scientific(deviation.norm), " | ",
                        scientific(deviation.first_gradient), " | ",
                        scientific(deviation.last_gradient), " |"));
          INFO("tp " << shape.tp_size << " dp " << shape.dp_size << " ZeRO " << zero_stage
                     << " accumulation " << accumulation << ": loss " << deviation.loss << ", norm "
                     << deviation.norm << ", step 1 " << deviation.first_gradient << " ("
                     << deviation.first_gradient_name << "), step 20 " << deviation.last_gradient
                     << " (" << deviation.last_gradient_name << ")");
          CHECK(within_contract(deviation));
        }
      }
    }
  }
}

TEST_CASE("ZeRO 0 and 1 are bitwise equal, and so is the same run twice", "[parity]") {
  at::set_num_threads(1);
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp()};
    const TrainingRun stage1 = train(tiny_llama(), axes, {.accumulation = 2, .zero_stage = 1});
    const TrainingRun again = train(tiny_llama(), axes, {.accumulation = 2, .zero_stage = 1});
    const TrainingRun stage0 = train(tiny_llama(), axes, {.accumulation = 2, .zero_stage = 0});
    CHECK(stage1.losses == again.losses);
    CHECK(stage1.norms == again.norms);
    CHECK(bitwise_equal(stage1.masters, again.masters));
    CHECK(stage1.losses == stage0.losses);
    CHECK(stage1.norms == stage0.norms);
    CHECK(bitwise_equal(stage1.masters, stage0.masters));
  }
}

TEST_CASE("a faulty reduction turns the parity suite red", "[parity][mutation]") {
  at::set_num_threads(1);
  const TrainingRun reference = train_reference(tiny_llama(), {});
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp()};
    const auto caught_in_tp = [&](const Fault& fault) {
      FaultyCommunicator tp(mesh.tp(), fault);
      return !within_contract(compare(
          train(tiny_llama(), {.world = session(), .tp = tp, .dp = mesh.dp()}, {}), reference));
    };
    const auto caught = [&](const TrainingOptions& options) {
      return !within_contract(compare(train(tiny_llama(), axes, options), reference));
    };
    CAPTURE(shape.tp_size, shape.dp_size);
    REQUIRE_FALSE(caught({.accumulation = 2}));  // right without a fault
    CHECK(caught(
        {.accumulation = 2, .engine_fault = train::EngineFault::weight_micro_batches_equally}));
    if (shape.dp_size > 1) {
      CHECK(caught({.zero_fault = zero::Fault::scale_dp_sum}));
      CHECK(caught({.zero_fault = zero::Fault::skip_dp_reduction}));
    }
    if (shape.tp_size > 1) {
      CHECK(caught({.zero_fault = zero::Fault::double_count_replicated_in_norm}));
      CHECK(caught({.zero_fault = zero::Fault::drop_norm_sum_over_tp}));
      REQUIRE_FALSE(caught_in_tp({}));
      // Each all-reduce of the first step, left out once: embedding, 2 a layer, row maxima and sums
      // of the loss; then head and 2 a layer backward.
      const int64_t per_step = 1 + 2 * 2 + 2 + 1 + 2 * 2;
      for (int64_t n = 0; n < per_step; ++n) {
        CAPTURE(n);
        CHECK(caught_in_tp(Fault::skip_nth_all_reduce(n)));
      }
    }
  }
}

}  // namespace tptrain::testing
