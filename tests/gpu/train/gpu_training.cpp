// Training on GPUs against the CPU reference: the same losses and norms on every layout of 1 and 2
// GPUs, and a checkpoint that moves between layouts.
#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <cmath>
#include <cstdlib>

#include "checkpoint/checkpoint_store.h"
#include "comm/device_mesh.h"
#include "device/device_info.h"
#include "planner/plan.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "support/parity_cases.h"
#include "support/published_shapes.h"
#include "support/temp_dir.h"
#include "support/training.h"
#include "train/graph_trial.h"

namespace tptrain::testing {
namespace {

// What deterministic algorithms need of cuBLAS, which reads it once.
const int kWorkspace = setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/1);

/// Peaks are those of what comes now.
void forget_memory(at::Device device) {
  // The allocator is there from the first tensor on.
  at::empty({1}, at::TensorOptions().device(device));
  c10::cuda::CUDACachingAllocator::emptyCache();
  c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
}

}  // namespace

TEST_CASE("GPUs train like the CPU reference on every layout", "[gpu][parity]") {
  at::globalContext().setAllowTF32CuBLAS(false);
  for (const model::DecoderConfig& config : {odd_llama(), odd_qwen2()}) {
    const TrainingRun reference = train_reference(config, {});
    REQUIRE(reference.losses.back() <= 0.8 * reference.losses.front());
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
      for (const int zero_stage : {0, 1, 2, 3}) {
        using tensor_parallel::SequenceParallel;
        const TrainingRun run = train(
            config, {.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()},
            {.accumulation = 3,
             .zero_stage = zero_stage,
             .model = {.sequence_parallel =
                           zero_stage % 2 == 1 ? SequenceParallel::on : SequenceParallel::off,
                       .recompute = zero_stage >= 2 ? model::Recompute::selective
                                                    : model::Recompute::none}});
        const Deviation deviation = compare(run, reference);
        CAPTURE(shape.tp_size, shape.dp_size, zero_stage, deviation.loss, deviation.norm);
        CHECK(deviation.loss <= 1e-5);
        CHECK(deviation.norm <= 1e-4);
      }
    }
  }
}

TEST_CASE("replayed steps are the bits of issued ones, in every stage and twice", "[gpu][parity]") {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
    std::optional<TrainingRun> of_stage_2;
    for (const int zero_stage : {0, 1, 2, 3}) {
      using tensor_parallel::SequenceParallel;
      TrainingOptions options{.steps = 6,
                              .accumulation = 3,
                              .zero_stage = zero_stage,
                              .model = {.sequence_parallel = SequenceParallel::on},
                              .dtype = at::kBFloat16,
                              .cuda_graphs = train::CudaGraphs::off};
      const TrainingRun issued = train(odd_llama(), axes, options);
      options.cuda_graphs = train::CudaGraphs::on;
      CAPTURE(shape.tp_size, shape.dp_size, zero_stage);
      CHECK(bitwise_equal(train(odd_llama(), axes, options), issued));
      CHECK(bitwise_equal(train(odd_llama(), axes, options), issued));
      if (zero_stage == 2) of_stage_2 = issued;
      if (zero_stage == 3) CHECK(bitwise_equal(issued, *of_stage_2));
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
}

// Products of bf16 keep two to three digits of an update: after 20 of them losses agree to a few in
// a thousand, and still fall.
TEST_CASE("muon on GPUs follows the CPU; stages and replays are bitwise alike", "[gpu][parity]") {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  const TrainingRun reference =
      train_reference(odd_qwen2(), {.update_rule = config::OptimizerType::muon});
  REQUIRE(reference.losses.back() < 0.9 * reference.losses.front());
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
    std::optional<TrainingRun> first;
    for (const int zero_stage : {0, 1, 2, 3}) {
      TrainingOptions options{.accumulation = 3,
                              .zero_stage = zero_stage,
                              .reduce_per_micro_batch = true,
                              .update_rule = config::OptimizerType::muon,
                              .cuda_graphs = train::CudaGraphs::off};
      const TrainingRun issued = train(odd_qwen2(), axes, options);
      const Deviation deviation = compare(issued, reference);
      CAPTURE(shape.tp_size, shape.dp_size, zero_stage, deviation.loss, deviation.first_gradient);
      CHECK(deviation.loss <= 5e-3);
      CHECK(deviation.first_gradient <= 1e-4);
      options.cuda_graphs = train::CudaGraphs::on;
      CHECK(bitwise_equal(train(odd_qwen2(), axes, options), issued));
      if (first) CHECK(bitwise_equal(issued, *first));
      if (!first) first = issued;
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
}

// On one GPU nothing is in parts: then FP8 alone.
TEST_CASE("FP8 of tensors in parts trains on GPUs like FP8 on the CPU; stages and replays alike",
          "[gpu][parity]") {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  TrainingOptions options{.steps = 10, .dtype = at::kBFloat16};
  options.model.fp8 = {.on = true, .all_gather = true};
  options.model.sequence_parallel = tensor_parallel::SequenceParallel::on;
  const TrainingRun reference = train_reference(even_llama(), options);
  options.accumulation = 2;
  options.reduce_per_micro_batch = true;
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
    std::optional<TrainingRun> first;
    for (const int stage : {0, 3, 2}) {
      options.zero_stage = stage;
      options.model.recompute = stage == 2 ? model::Recompute::full : model::Recompute::none;
      options.cuda_graphs = train::CudaGraphs::off;
      const TrainingRun issued = train(even_llama(), axes, options);
      const double deviation = compare(issued, reference).loss;
      CAPTURE(shape.tp_size, shape.dp_size, stage, deviation);
      CHECK(deviation <= 0.005);
      options.cuda_graphs = train::CudaGraphs::on;
      CHECK(bitwise_equal(train(even_llama(), axes, options), issued));
      if (first) CHECK(bitwise_equal(issued, *first));
      if (!first) first = issued;
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
}

TEST_CASE("measuring which way steps are faster changes no bit", "[gpu][parity]") {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
    CAPTURE(shape.tp_size, shape.dp_size);
    // Two steps before those of each phase that are timed, and some of the way that was found.
    constexpr auto kPhases = static_cast<int64_t>(train::GraphTrial::kPhases.size());
    TrainingOptions options{.steps = kPhases * (train::GraphTrial::kTimed + 2) + 3,
                            .zero_stage = 2,
                            .dtype = at::kBFloat16,
                            .cuda_graphs = train::CudaGraphs::off};
    const TrainingRun issued = train(odd_llama(), axes, options);
    options.cuda_graphs = train::CudaGraphs::automatic;
    CHECK(bitwise_equal(train(odd_llama(), axes, options), issued));
  }
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
}

TEST_CASE("masked documents train on GPUs like on the CPU", "[gpu][parity]") {
  at::globalContext().setAllowTF32CuBLAS(false);
  for (const model::DecoderConfig& config : {odd_llama(), odd_gpt2(), odd_qwen3()}) {
    TrainingOptions options{.steps = 8, .document_mask = data::DocumentMask::on};
    const TrainingRun reference = train_reference(config, options);
    const TrainingRun unmasked = train_reference(config, {.steps = 8});
    REQUIRE(compare(unmasked, reference).loss > 1e-3);
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
      const Axes axes{
          .world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
      for (const int zero_stage : {1, 3}) {
        using tensor_parallel::SequenceParallel;
        options.accumulation = 3;
        options.zero_stage = zero_stage;
        options.model.sequence_parallel =
            zero_stage == 1 ? SequenceParallel::on : SequenceParallel::off;
        options.model.recompute = zero_stage == 1 ? model::Recompute::none : model::Recompute::full;
        const Deviation deviation = compare(train(config, axes, options), reference);
        CAPTURE(config.model_type, shape.tp_size, shape.dp_size, zero_stage, deviation.loss,
                deviation.norm);
        CHECK(deviation.loss <= 1e-5);
        CHECK(deviation.norm <= 1e-4);
      }
    }
  }
}

TEST_CASE("replayed steps of masked documents are the bits of issued ones, however many there are",
          "[gpu][parity]") {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  // Steps 0 and 3 bring more documents than any before: captured anew, with room for as many. The
  // steps behind them replay with fewer.
  const auto most_documents = [](int64_t step) {
    data::HostBatch batch = parity_batch(step, 0, 2, 1003);
    mask_parity_documents(batch);
    return batch.documents();
  };
  REQUIRE(most_documents(0) < 16);
  REQUIRE(most_documents(3) >= 16);
  REQUIRE(most_documents(4) < most_documents(3));
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
    for (const model::DecoderConfig& config : {odd_llama(), odd_gpt2()}) {
      for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
        for (const int zero_stage : {1, 3}) {
          TrainingOptions options{
              .steps = 9,
              .accumulation = 3,
              .zero_stage = zero_stage,
              .model = {.sequence_parallel = tensor_parallel::SequenceParallel::on},
              .dtype = dtype,
              .document_mask = data::DocumentMask::on,
              .cuda_graphs = train::CudaGraphs::off};
          const TrainingRun issued = train(config, axes, options);
          options.cuda_graphs = train::CudaGraphs::on;
          CAPTURE(config.model_type, dtype, shape.tp_size, shape.dp_size, zero_stage);
          CHECK(bitwise_equal(train(config, axes, options), issued));
          CHECK(bitwise_equal(train(config, axes, options), issued));
        }
      }
    }
  }
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
}

TEST_CASE("direct copies between GPUs train to the bits of NCCL", "[gpu][parity][ranks:2+]") {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  // Of blocks that are a few kilobytes, and of some that are megabytes.
  model::DecoderConfig wide = odd_llama();
  wide.hidden_size = 512;
  wide.intermediate_size = 4000;
  wide.vocab_size = 5001;
  using comm::PeerCopies;
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    const auto mesh_with = [&](PeerCopies copies) {
      return comm::DeviceMesh(session(), shape, comm::DeviceType::cuda, {},
                              comm::AxisCopies{.tp = copies, .dp = copies});
    };
    comm::DeviceMesh plain = mesh_with(PeerCopies::off);
    comm::DeviceMesh mesh = mesh_with(PeerCopies::automatic);
    const auto axes_of = [](comm::DeviceMesh& on) {
      return Axes{.world = session(), .tp = on.tp(), .dp = on.dp(), .device = on.device()};
    };
    for (const model::DecoderConfig& config : {odd_llama(), wide}) {
      for (const int zero_stage : {0, 1, 2, 3}) {
        TrainingOptions options{
            .steps = 6,
            .accumulation = 2,
            .zero_stage = zero_stage,
            .model = {.sequence_parallel = tensor_parallel::SequenceParallel::on},
            .dtype = at::kBFloat16,
            .cuda_graphs = train::CudaGraphs::off};
        CAPTURE(shape.tp_size, shape.dp_size, config.hidden_size, zero_stage);
        const TrainingRun copied = train(config, axes_of(mesh), options);
        // NCCL adds more than two terms in another order than that of the ranks.
        if (shape.tp_size <= 2 && shape.dp_size <= 2)
          CHECK(bitwise_equal(train(config, axes_of(plain), options), copied));
        options.cuda_graphs = train::CudaGraphs::on;
        CHECK(bitwise_equal(train(config, axes_of(mesh), options), copied));
      }
    }
    CHECK(plain.tp().counters().pushes + plain.dp().counters().pushes == 0);
    if (shape.dp_size > 1) CHECK(mesh.dp().counters().pushes > 0);
  }
  at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
}

TEST_CASE("1,000 steps take no more memory than the first twenty", "[gpu][memory]") {
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp(), .device = mesh.device()};
    for (const train::CudaGraphs graphs : {train::CudaGraphs::on, train::CudaGraphs::off}) {
      const auto steps = [&](int64_t count) {
        forget_memory(mesh.device());
        train(odd_llama(), axes, {.steps = count, .dtype = at::kBFloat16, .cuda_graphs = graphs});
        return device::device_memory(mesh.device()).peak_reserved_bytes;
      };
      const int64_t after_twenty = steps(20);
      CHECK(steps(1000) == after_twenty);
    }
  }
}

TEST_CASE("a step reserves what the plan says", "[gpu][memory][planner]") {
  constexpr int64_t kSequence = 2048;
  constexpr int64_t kSequences = 8;
  constexpr double kWithin = 0.1;
  const model::DecoderConfig config = qwen2_half_billion();
  const std::vector<int64_t> ids(kSequences * kSequence, 1);
  const data::HostBatch batch{
      .batch = kSequences, .seq_length = kSequence, .ids = ids, .targets = ids};
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    const planner::Layout layout = {.tp_size = shape.tp_size,
                                    .dp_size = shape.dp_size,
                                    .seq_length = kSequence,
                                    .micro_batch_size = kSequences,
                                    .dtype = at::kBFloat16,
                                    .device = planner::Device::cuda};
    const planner::RankPlan plan = planner::plan_of_rank(config, layout, mesh.tp_rank());
    for (const train::CudaGraphs graphs : {train::CudaGraphs::on, train::CudaGraphs::off}) {
      forget_memory(mesh.device());
      train::Engine engine(
          {.decoder = config,
           .training = layout.training,
           .zero = {.zero_stage = static_cast<int>(layout.zero_stage), .optimizer = {}},
           .dtype = layout.dtype,
           .cuda_graphs = graphs},
          mesh.tp(), mesh.dp(), mesh.device());
      engine.state().initialise(1);
      for (int i = 0; i < 6; ++i)
        engine.step({train::to_device(batch, mesh.device())},
                    kSequences * kSequence * shape.dp_size, 1e-4, 1.0);
      const auto reserved =
          static_cast<double>(device::device_memory(mesh.device()).peak_reserved_bytes);
      // The buffers of direct copies are planned, and lie outside the allocator.
      const planner::MemoryPlan& planned = plan.memory[static_cast<size_t>(layout.zero_stage)];
      const auto of_allocator = static_cast<double>(planned.total() - plan.push_buffers);
      CAPTURE(shape.tp_size, shape.dp_size, graphs, reserved, of_allocator);
      CHECK(std::abs(reserved - of_allocator) <= kWithin * reserved);
    }
  }
}

TEST_CASE("a save of bf16 state takes no more of a GPU than a few chunks", "[gpu][memory]") {
  constexpr int64_t kSequence = 64;
  std::string directory;
  std::optional<TempDir> temporary;
  if (session().rank() == 0) directory = temporary.emplace().path().string();
  directory = session().broadcast(directory, 0);
  checkpoint::CheckpointStore store(
      session(), {.directory = std::filesystem::path(directory) / "checkpoints", .keep = 0});
  model::DecoderConfig config = qwen2_half_billion();
  config.num_hidden_layers = 2;
  comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = session().size()},
                        comm::DeviceType::cuda);
  zero::ZeroOptimizer::Options zero{.zero_stage = 1, .optimizer = {}};
  zero.optimizer.master_dtype = config::Dtype::bf16;
  zero.optimizer.moments_dtype = config::Dtype::bf16;
  train::Engine engine({.decoder = config, .zero = zero, .dtype = at::kBFloat16}, mesh.tp(),
                       mesh.dp(), mesh.device());
  engine.state().initialise(1);
  const std::vector<int64_t> ids(kSequence, 1);
  const data::HostBatch batch{.batch = 1, .seq_length = kSequence, .ids = ids, .targets = ids};
  engine.step({train::to_device(batch, mesh.device())}, kSequence, 1e-4, 1.0);
  engine.state().updates_done();  // the step is through

  // All that is free goes back: a save and a load have to ask for what they need.
  c10::cuda::CUDACachingAllocator::emptyCache();
  const int64_t before = device::device_use(mesh.device()).reserved_bytes;
  c10::cuda::CUDACachingAllocator::resetPeakStats(mesh.device().index());
  store.save(engine.state().state_dict(), {.step = 1, .model_json = model::to_json(config)});
  const auto found = store.newest();
  REQUIRE(found.info.has_value());
  sharding::StateDict state = engine.state().state_dict();
  store.load_into(state, *found.info);
  engine.state().state_loaded(1);
  const int64_t peak = device::device_memory(mesh.device()).peak_reserved_bytes;
  CAPTURE(before, peak);
  CHECK(peak - before <= 3 * sharding::kStateChunkElements * static_cast<int64_t>(sizeof(float)));
}

TEST_CASE("a checkpoint of GPU ranks loads bit for bit on another layout", "[gpu][checkpoint]") {
  std::string directory;
  std::optional<TempDir> temporary;
  if (session().rank() == 0) directory = temporary.emplace().path().string();
  directory = session().broadcast(directory, 0);
  checkpoint::CheckpointStore store(
      session(), {.directory = std::filesystem::path(directory) / "checkpoints", .keep = 0});
  const model::DecoderConfig config = odd_llama();

  GlobalTensors saved;
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cuda);
    train::Engine engine({.decoder = config, .zero = {.zero_stage = 1, .optimizer = {}}}, mesh.tp(),
                         mesh.dp(), mesh.device());
    sharding::StateDict state = engine.state().state_dict();
    if (saved.empty()) {
      engine.state().initialise(3);
      saved = assemble(session(), engine.state().state_dict(), sharding::kMaster);
      store.save(engine.state().state_dict(), {.step = 1, .model_json = model::to_json(config)});
      if (session().size() > 1) continue;
    }
    const auto found = store.newest();
    REQUIRE(found.info.has_value());
    store.load_into(state, *found.info);
    engine.state().state_loaded(0);
    CHECK(assemble(session(), engine.state().state_dict(), sharding::kMaster) == saved);
  }
}

}  // namespace tptrain::testing
