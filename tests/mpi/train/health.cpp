// Replicas that drift, batches that differ within a tp group, numbers that are not finite: each is
// caught at the step where it happens, and the rank and the tensor are named.
#include "train/health.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "support/parity_cases.h"
#include "support/temp_dir.h"
#include "support/training.h"
#include "train/step_exchange.h"

namespace tptrain::testing {
namespace {

using parameters::Parameter;
using tensor_parallel::BlockObserver;

constexpr int kBadRank = 1;
const char* const kNothing = "(nothing was thrown)";

train::Engine engine_on(comm::DeviceMesh& mesh, int zero_stage) {
  return train::Engine(
      {.decoder = odd_llama(),
       .zero = {.zero_stage = zero_stage, .reduce_per_micro_batch = zero_stage >= 2}},
      mesh.tp(), mesh.dp(), mesh.device());
}

Parameter& find(train::Engine& engine, const std::string& name) {
  for (Parameter* parameter : engine.decoder().parameters()) {
    if (parameter->name == name) return *parameter;
  }
  throw std::runtime_error("no parameter " + name);
}

std::string audit_message(train::Engine& engine, int64_t step) {
  return message_of<NumericsError>(
      [&] { train::audit_parameters(engine.state(), session(), step); });
}

train::MicroBatch own_batch(comm::DeviceMesh& mesh) {
  const int64_t count = kGlobalBatch / mesh.shape().dp_size;
  return train::to_device(parity_batch(0, mesh.dp_rank() * count, count, 1003), at::kCPU);
}

/// Passes everything on, but first spoils a gradient on one rank.
class Spoiler final : public BlockObserver {
 public:
  Spoiler(BlockObserver& real, int block, Parameter* parameter)
      : real_(real), block_(block), parameter_(parameter) {}
  void before_forward(int block) override { real_.before_forward(block); }
  void after_forward(int block) override { real_.after_forward(block); }
  void before_backward(int block) override { real_.before_backward(block); }
  void after_backward(int block) override {
    if (block == block_ && parameter_ != nullptr)
      parameter_->main_grad.view({-1})[3].fill_(std::numeric_limits<float>::quiet_NaN());
    real_.after_backward(block);
  }
  at::Tensor look_up(const Parameter& table, const at::Tensor& ids) override {
    return real_.look_up(table, ids);
  }
  void add_table_rows(Parameter& table, at::Tensor rows, const at::Tensor& ids) override {
    real_.add_table_rows(table, std::move(rows), ids);
  }

 private:
  BlockObserver& real_;
  int block_;
  Parameter* parameter_;
};

}  // namespace

TEST_CASE("a corrupted parameter is found before the next step, with tensor and rank") {
  at::set_num_threads(1);
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
    for (const int zero_stage : {0, 1, 2}) {
      CAPTURE(shape.tp_size, shape.dp_size, zero_stage);
      train::Engine engine = engine_on(mesh, zero_stage);
      engine.state().initialise(kSeed);
      CHECK(audit_message(engine, 5) == kNothing);
      // One bit of a replicated weight (over tp and dp), as a fault of memory would turn it.
      const std::string name = "model.layers.1.post_attention_layernorm.weight";
      if (session().rank() == kBadRank) {
        at::Tensor bits = find(engine, name).data.view(at::kInt);
        bits[7].bitwise_xor_(1);
      }
      const std::string message = audit_message(engine, 6);
      CHECK(has(message, cat("'", name, "'")));
      CHECK(has(message, "before step 6"));
      CHECK(has(message, cat("rank ", kBadRank, " ")));
      CHECK_FALSE(has(message, "input_layernorm"));
    }
  }
}

TEST_CASE("stage 3 gathers what it audits: copies of shards over tp must agree") {
  at::set_num_threads(1);
  comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = session().size()},
                        comm::DeviceType::cpu);
  train::Engine engine = engine_on(mesh, 3);
  engine.state().initialise(kSeed);
  CHECK(audit_message(engine, 1) == kNothing);
  if (session().rank() == kBadRank) {
    for (const sharding::StatePiece& piece : engine.state().state_dict().pieces) {
      if (piece.kind == sharding::kMaster && piece.spec.name == "model.norm.weight")
        at::Tensor(piece.data)[0].add_(1e-3);
    }
  }
  CHECK(has(audit_message(engine, 2), "'model.norm.weight'"));
}

// 2 kv heads: copies exist with tp 4.
TEST_CASE("copies of a kv head that drift are found", "[ranks:4]") {
  at::set_num_threads(1);
  comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = 4}, comm::DeviceType::cpu);
  train::Engine engine = engine_on(mesh, 1);
  engine.state().initialise(kSeed);
  if (session().rank() == kBadRank) {
    Parameter& qkv = find(engine, "model.layers.0.self_attn.qkv_proj.weight");
    qkv.data.view({-1})[qkv.slices[1].offset].add_(1e-3);  // k
  }
  const std::string message = audit_message(engine, 3);
  CHECK(has(message, "'model.layers.0.self_attn.k_proj.weight'"));
  CHECK(has(message, "rank 1 "));
  CHECK_FALSE(has(message, "v_proj"));
}

TEST_CASE("another batch on one tp rank is found before its step") {
  const comm::MeshShape shape{.dp_size = session().size() / 2, .tp_size = 2};
  comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
  const train::StepReport report{.token_hash = session().rank() == kBadRank ? 8u : 7u,
                                 .target_tokens = 5};
  const std::string message = message_of<DataError>([&] {
    train::agree_on_step(train::gather_step_reports(session(), mesh, report), shape, 12);
  });
  CHECK(has(message, "step 12"));
  CHECK(has(message, "rank 1"));
}

TEST_CASE("a nan on one rank stops the update on all, and is named with rank and tensor") {
  at::set_num_threads(1);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
    for (const int zero_stage : {0, 1, 2, 3}) {
      CAPTURE(shape.tp_size, shape.dp_size, zero_stage);
      train::Engine engine = engine_on(mesh, zero_stage);
      zero::ZeroOptimizer& zero = engine.zero();
      zero.state().initialise(kSeed);
      const auto masters = [&] {
        return assemble(session(), zero.state().state_dict(), sharding::kMaster);
      };
      const GlobalTensors before = masters();
      const auto step = [&](bool spoil) {
        Spoiler observer(zero, /*block=*/1, spoil ? &find(engine, name) : nullptr);
        zero.prepare_step(1e-3);
        zero.begin_step();
        const at::Tensor losses = engine.decoder().forward_backward(
            own_batch(mesh), at::full({}, 0.01, at::TensorOptions().dtype(at::kFloat)), observer);
        zero.finish_reduction();
        const zero::StepNumbers numbers = zero.clip(1.0, losses);
        zero.update();
        return numbers;
      };
      const zero::StepNumbers bad = step(session().rank() == kBadRank);
      CHECK_FALSE(bad.finite.item<bool>());
      CHECK(train::describe_nonfinite(engine.buckets(), bad, session()) ==
            cat("rank ", kBadRank, ": the gradient of '", name, "'"));
      CHECK(masters() == before);
      CHECK(zero.state().updates_done() == 0);

      const zero::StepNumbers good = step(false);  // the next step is none the worse
      CHECK(good.finite.item<bool>());
      CHECK(good.culprit.item<int64_t>() == -1);
      CHECK(zero.state().updates_done() == 1);
      CHECK_FALSE(masters() == before);
    }
  }
}

TEST_CASE("a loss that is not finite on one dp rank stops the update on all") {
  at::set_num_threads(1);
  comm::DeviceMesh mesh(session(), {.dp_size = session().size(), .tp_size = 1},
                        comm::DeviceType::cpu);
  train::Engine engine = engine_on(mesh, 1);
  zero::ZeroOptimizer& zero = engine.zero();
  zero.state().initialise(kSeed);
  zero.begin_step();
  zero.finish_reduction();
  const bool bad = session().rank() == kBadRank;
  const zero::StepNumbers numbers = zero.clip(
      1.0, at::full({2}, bad ? std::numeric_limits<float>::infinity() : 1.0f, at::kFloat));
  CHECK_FALSE(numbers.finite.item<bool>());
  CHECK(train::describe_nonfinite(engine.buckets(), numbers, session()) == "rank 1: its loss");
}

}  // namespace tptrain::testing
