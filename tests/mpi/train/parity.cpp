// The numerics contract over layouts: tp x dp x ZeRO x cadence x sequence parallel x recompute x
// accumulation x model against one rank without communication, and the faults that must turn it
// red.
//
// By default a pairwise sample, always the same; TPTRAIN_PARITY_SEED is that of another, or
// `random`; TPTRAIN_PARITY=all runs the whole product, as scripts/parity.sh does for
// docs/parity.md.
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <random>

#include "base/text.h"
#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/faulty_communicator.h"
#include "support/gradient_scale.h"
#include "support/mpi.h"
#include "support/parity_cases.h"
#include "support/reference_decoder.h"
#include "support/training.h"

namespace tptrain::testing {
namespace {

using tensor_parallel::SequenceParallel;

void print_row(const std::string& text) {
  if (session().rank() == 0) std::puts(text.c_str());
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

uint64_t sample_seed() {
  const std::string given = environment("TPTRAIN_PARITY_SEED");
  if (given.empty()) return 1;
  const std::string own = given == "random" ? cat(std::random_device()() % 1000000) : given;
  return std::stoull(session().broadcast(own, 0));
}

/// Meshes are made once: each brings communicators of its own.
class Meshes {
 public:
  comm::DeviceMesh& of(const comm::MeshShape& shape) {
    auto& mesh = meshes_[shape.tp_size];
    if (!mesh) mesh = std::make_unique<comm::DeviceMesh>(session(), shape, comm::DeviceType::cpu);
    return *mesh;
  }
  Axes axes(const comm::MeshShape& shape) {
    return {.world = session(), .tp = of(shape).tp(), .dp = of(shape).dp()};
  }

 private:
  std::map<int, std::unique_ptr<comm::DeviceMesh>> meshes_;
};

/// The worst of all cases of one layout, stage, cadence and form of tensor parallelism.
struct Row {
  int64_t runs = 0;
  Deviation worst;
  void add(const Deviation& d) {
    ++runs;
    worst.loss = std::max(worst.loss, d.loss);
    worst.norm = std::max(worst.norm, d.norm);
    worst.first_gradient = std::max(worst.first_gradient, d.first_gradient);
    worst.last_gradient = std::max(worst.last_gradient, d.last_gradient);
  }
};

void print_table(const std::map<std::string, Row>& rows) {
  print_row(
      "| tp | dp | ZeRO | reduced | sequence parallel | runs | loss | norm | gradient, step 1 | "
      "gradient, step 20 |");
  print_row("|---|---|---|---|---|---|---|---|---|---|");
  for (const auto& [name, row] : rows) {
    print_row(cat(name, row.runs, " | ", row_of(row.worst)));
  }
}

}  // namespace

TEST_CASE("the one-rank reference has the loss and the gradients of plain ATen autograd",
          "[parity]") {
  at::set_num_threads(1);
  for (const model::DecoderConfig& config : parity_models()) {
    CAPTURE(config.model_type);
    const TrainingRun run = train_reference(config, {.steps = 1});
    const data::HostBatch batch = parity_batch(0, 0, kGlobalBatch, config.vocab_size);
    const train::MicroBatch micro = train::to_device(batch, at::kCPU);
    const ReferenceResult plain =
        reference_step(config, initial_weights(config, kSeed), micro.ids, micro.targets,
                       1.0 / static_cast<double>(batch.target_tokens()));
    CHECK(std::abs(run.losses[0] - plain.loss.item<double>()) <= 2e-6 * run.losses[0]);
    REQUIRE(run.first_gradients.size() == plain.gradients.size());
    for (const auto& [name, values] : run.first_gradients) {
      const at::Tensor& expected = plain.gradients.at(name);
      const at::Tensor own =
          at::from_blob(const_cast<float*>(values.data()), expected.sizes(), at::kFloat);
      const at::Tensor& scale = plain.gradients.at(gradient_scale_of(name, plain.gradients));
      CAPTURE(name);
      CHECK((own - expected).abs().max().item<float>() <= 1e-5f * scale.abs().max().item<float>());
    }
  }
}

TEST_CASE("every layout trains like one rank, and stages and recompute bitwise alike", "[parity]") {
  at::set_num_threads(1);
  std::vector<TrainingRun> references;  // by model
  for (const model::DecoderConfig& config : parity_models()) {
    references.push_back(train_reference(config, {}));
    const std::vector<float>& losses = references.back().losses;
    CAPTURE(config.model_type);
    INFO("the loss must fall by 20 %, or the test proves nothing: " << losses.front() << " to "
                                                                    << losses.back());
    REQUIRE(losses.back() <= 0.8 * losses.front());
  }
  std::vector<ParityCase> cases = all_parity_cases(session().size());
  if (environment("TPTRAIN_PARITY") != "all") {
    const uint64_t seed = sample_seed();
    const size_t all = cases.size();
    cases = pairwise_sample(cases, seed);
    print_row(
        cat("pairwise sample: ", cases.size(), " of ", all, " cases, TPTRAIN_PARITY_SEED=", seed));
  }

  Meshes meshes;
  std::map<std::string, Row> rows;
  std::map<std::string, TrainingRun> firsts;  // by bitwise_key
  for (const ParityCase& one : cases) {
    const TrainingRun run = train(one.config(), meshes.axes(one.shape), one.options());
    const Deviation deviation = compare(run, references[static_cast<size_t>(one.model)]);
    rows[cat("| ", one.shape.tp_size, " | ", one.shape.dp_size, " | ", one.zero_stage, " | ",
             one.per_micro_batch ? "per micro-batch" : "per step", " | ",
             one.sequence_parallel ? "on" : "off", " | ")]
        .add(deviation);
    INFO(one.text() << ": loss " << deviation.loss << ", norm " << deviation.norm << ", step 1 "
                    << deviation.first_gradient << " (" << deviation.first_gradient_name
                    << "), step 20 " << deviation.last_gradient << " ("
                    << deviation.last_gradient_name << ")");
    CHECK(within_contract(deviation));
    const auto [first, is_new] = firsts.try_emplace(one.bitwise_key(), run);
    if (!is_new) CHECK(bitwise_equal(run, first->second));
  }
  print_table(rows);
}

TEST_CASE("at one cadence all ZeRO stages are bitwise equal, and so is the same run twice",
          "[parity]") {
  at::set_num_threads(1);
  Meshes meshes;
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    CAPTURE(shape.tp_size, shape.dp_size);
    const Axes axes = meshes.axes(shape);
    for (const bool per_micro_batch : {false, true}) {
      TrainingOptions options{.steps = 6,
                              .accumulation = 3,
                              .zero_stage = 0,
                              .reduce_per_micro_batch = per_micro_batch,
                              .model = {.sequence_parallel = SequenceParallel::on}};
      const TrainingRun stage0 = train(odd_qwen2(), axes, options);
      CHECK(bitwise_equal(train(odd_qwen2(), axes, options), stage0));
      for (int stage = 1; stage <= (per_micro_batch ? 3 : 1); ++stage) {
        CAPTURE(stage, per_micro_batch);
        options.zero_stage = stage;
        CHECK(bitwise_equal(train(odd_qwen2(), axes, options), stage0));
      }
    }
  }
}

TEST_CASE("a look-up that sends rows over dp trains like one rank, in every stage",
          "[parity][ranks:2+]") {
  at::set_num_threads(1);
  Meshes meshes;
  for (const model::DecoderConfig& config : {odd_llama(), odd_qwen2(), odd_gpt2()}) {
    const TrainingRun reference = train_reference(config, {.accumulation = 3});
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      if (shape.dp_size == 1) continue;
      for (const bool per_micro_batch : {false, true}) {
        std::optional<TrainingRun> first;
        for (const int stage : per_micro_batch ? std::vector{0, 1, 2, 3} : std::vector{0, 1}) {
          const TrainingRun run = train(config, meshes.axes(shape),
                                        {.accumulation = 3,
                                         .zero_stage = stage,
                                         .reduce_per_micro_batch = per_micro_batch,
                                         .model = {.sequence_parallel = SequenceParallel::on},
                                         .lookup_rows = zero::LookupRows::always});
          CAPTURE(config.model_type, shape.tp_size, shape.dp_size, stage, per_micro_batch);
          CHECK(within_contract(compare(run, reference)));
          if (first) CHECK(bitwise_equal(run, *first));
          if (!first) first = run;
        }
      }
    }
  }
}

TEST_CASE("dropout draws the same numbers on every layout", "[parity]") {
  at::set_num_threads(1);
  Meshes meshes;
  TrainingOptions options{.model = {.attention_dropout = 0.1, .residual_dropout = 0.2, .seed = 5}};
  const TrainingRun reference = train_reference(odd_llama(), options);
  const TrainingRun without = train_reference(odd_llama(), {});
  CHECK_FALSE(within_contract(compare(reference, without)));
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    for (const SequenceParallel slices : {SequenceParallel::off, SequenceParallel::on}) {
      options.model.sequence_parallel = slices;
      options.model.recompute =
          slices == SequenceParallel::on ? model::Recompute::full : model::Recompute::selective;
      options.zero_stage = slices == SequenceParallel::on ? 3 : 1;
      options.accumulation = 3;
      const Deviation deviation =
          compare(train(odd_llama(), meshes.axes(shape), options), reference);
      CAPTURE(shape.tp_size, shape.dp_size, deviation.loss, deviation.norm,
              deviation.first_gradient, deviation.last_gradient);
      CHECK(within_contract(deviation));
    }
  }
}

TEST_CASE("documents that do not see each other train on every layout like each one alone",
          "[parity]") {
  at::set_num_threads(1);
  // A document a sequence, with nothing to mask: the first step's gradient in the plain reference.
  for (const model::DecoderConfig& config : parity_models()) {
    CAPTURE(config.model_type);
    data::HostBatch batch = parity_batch(0, 0, kGlobalBatch, config.vocab_size);
    mask_parity_documents(batch);
    const double inverse = 1.0 / static_cast<double>(batch.target_tokens());
    const Tensors weights = initial_weights(config, kSeed);
    double loss = 0;
    Tensors gradients;
    for (int64_t begin = 0; const int64_t end : batch.document_ends) {
      const auto column = [&](const std::vector<int64_t>& of) {
        return at::tensor(std::vector<int64_t>(of.begin() + begin, of.begin() + end), at::kLong)
            .unsqueeze(1);
      };
      const ReferenceResult one =
          reference_step(config, weights, column(batch.ids), column(batch.targets), inverse);
      loss += one.loss.item<double>();
      for (const auto& [name, gradient] : one.gradients)
        gradients[name] = gradients.count(name) ? gradients[name] + gradient : gradient;
      begin = end;
    }
    const TrainingRun run =
        train_reference(config, {.steps = 1, .document_mask = data::DocumentMask::on});
    CHECK(std::abs(run.losses[0] - loss) <= 2e-6 * loss);
    for (const auto& [name, values] : run.first_gradients) {
      const at::Tensor& expected = gradients.at(name);
      const at::Tensor own =
          at::from_blob(const_cast<float*>(values.data()), expected.sizes(), at::kFloat);
      const at::Tensor& scale = gradients.at(gradient_scale_of(name, gradients));
      CAPTURE(name);
      CHECK((own - expected).abs().max().item<float>() <= 1e-5f * scale.abs().max().item<float>());
    }
  }

  Meshes meshes;
  std::map<std::string, Row> rows;
  for (const model::DecoderConfig& config : parity_models()) {
    TrainingOptions options{.document_mask = data::DocumentMask::on};
    const TrainingRun reference = train_reference(config, options);
    REQUIRE(reference.losses.back() <= 0.8 * reference.losses.front());
    CHECK_FALSE(within_contract(compare(train_reference(config, {}), reference)));
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      for (const SequenceParallel slices : {SequenceParallel::off, SequenceParallel::on}) {
        if (slices == SequenceParallel::on && shape.tp_size == 1) continue;
        std::optional<TrainingRun> first;
        // At one cadence, and with the same micro-batches: bitwise the same.
        for (const auto& [stage, recompute] :
             {std::pair{0, model::Recompute::none}, std::pair{1, model::Recompute::full},
              std::pair{2, model::Recompute::selective}, std::pair{3, model::Recompute::full}}) {
          options.zero_stage = stage;
          options.reduce_per_micro_batch = true;
          options.accumulation = 3;
          options.model = {.sequence_parallel = slices, .recompute = recompute};
          const TrainingRun run = train(config, meshes.axes(shape), options);
          const Deviation deviation = compare(run, reference);
          rows[cat("| ", shape.tp_size, " | ", shape.dp_size, " | ", stage, " | per micro-batch | ",
                   slices == SequenceParallel::on ? "on" : "off", " | ")]
              .add(deviation);
          CAPTURE(config.model_type, shape.tp_size, shape.dp_size, stage, deviation.loss,
                  deviation.norm, deviation.first_gradient, deviation.last_gradient,
                  deviation.last_gradient_name);
          CHECK(within_contract(deviation));
          if (first) CHECK(bitwise_equal(run, *first));
          if (!first) first = run;
        }
        options.accumulation = 1;  // micro-batches of all of a rank's sequences
        options.zero_stage = 1;
        CHECK(within_contract(compare(train(config, meshes.axes(shape), options), reference)));
      }
    }
  }
  print_row("documents packed into sequences, with a mask:");
  print_table(rows);
}

TEST_CASE("bf16 trains within 0.5 % of one rank on every layout, its options within 2 %",
          "[parity]") {
  at::set_num_threads(1);
  Meshes meshes;
  TrainingOptions options{.dtype = at::kBFloat16};
  const TrainingRun reference = train_reference(odd_llama(), options);
  const TrainingRun fp32 = train_reference(odd_llama(), {});
  CHECK(compare(reference, fp32).loss <= 0.01);
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    std::vector<TrainingRun> plain_runs;  // by stage
    for (const int stage : {0, 1, 2, 3}) {
      TrainingOptions plain = options;
      plain.zero_stage = stage;
      plain.model.sequence_parallel = stage % 2 == 1 ? SequenceParallel::on : SequenceParallel::off;
      CAPTURE(shape.tp_size, shape.dp_size, stage);
      plain_runs.push_back(train(odd_llama(), meshes.axes(shape), plain));
      CHECK(compare(plain_runs.back(), reference).loss <= 0.005);
    }
    CAPTURE(shape.tp_size, shape.dp_size);
    const auto check_option = [&](int stage, double within, const auto& set) {
      TrainingOptions one = options;
      one.zero_stage = stage;
      one.model.sequence_parallel = stage % 2 == 1 ? SequenceParallel::on : SequenceParallel::off;
      set(one);
      const TrainingRun run = train(odd_llama(), meshes.axes(shape), one);
      CHECK(compare(run, reference).loss <= within);
      CHECK_FALSE(bitwise_equal(run, plain_runs[static_cast<size_t>(stage)]));  // it does round
    };
    check_option(2, 0.005, [](TrainingOptions& one) { one.gradient_dtype = at::kBFloat16; });
    if (shape.dp_size > 1)
      check_option(1, 0.01, [](TrainingOptions& one) { one.reduce_dtype = at::kBFloat16; });
    check_option(1, 0.01, [](TrainingOptions& one) { one.moments_dtype = config::Dtype::bf16; });
    check_option(1, 0.02, [](TrainingOptions& one) { one.master_dtype = config::Dtype::bf16; });
    check_option(3, 0.02, [](TrainingOptions& one) {
      one.reduce_dtype = at::kBFloat16;
      one.moments_dtype = config::Dtype::bf16;
      one.master_dtype = config::Dtype::bf16;
    });
  }
}

double mean_of(const std::vector<float>& losses) {
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

TEST_CASE("FP8 trains within 0.1 % of FP8 on one rank on every layout, and its stages alike",
          "[parity]") {
  at::set_num_threads(1);
  Meshes meshes;
  TrainingOptions options{.steps = 10, .dtype = at::kBFloat16};
  const TrainingRun bf16 = train_reference(even_llama(), options);
  options.model.fp8.on = true;
  const TrainingRun reference = train_reference(even_llama(), options);
  CHECK_FALSE(bitwise_equal(reference, bf16));  // it is FP8
  CHECK(compare(reference, bf16).loss <= 0.01);
  options.reduce_per_micro_batch = true;
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    const Axes axes = meshes.axes(shape);
    std::optional<TrainingRun> first;
    for (const int stage : {0, 1, 2, 3}) {
      options.zero_stage = stage;
      options.accumulation = 12 / shape.dp_size % 2 == 0 ? 2 : 1;
      CAPTURE(shape.tp_size, shape.dp_size, stage);
      const TrainingRun run = train(even_llama(), axes, options);
      // A last bit of bf16 turns some roundings to FP8 around: steps scatter, their mean does not.
      CHECK(compare(run, reference).loss <= 0.003);
      CHECK(std::abs(mean_of(run.losses) / mean_of(reference.losses) - 1) <= 0.001);
      if (first) CHECK(bitwise_equal(run, *first));
      if (!first) first = run;
    }
    // What is kept for backward changes no bit, nor does making it again.
    for (const model::Recompute recompute : {model::Recompute::selective, model::Recompute::full}) {
      TrainingOptions again = options;
      again.model.recompute = recompute;
      CHECK(bitwise_equal(train(even_llama(), axes, again), *first));
    }
    // One scale for a tensor in parts, what is gathered of it in bytes: the same, and its stages
    // alike, though ZeRO-3 casts shards of the masters before they meet.
    TrainingOptions shared = options;
    shared.model.fp8.all_gather = true;
    shared.model.sequence_parallel = SequenceParallel::on;
    std::optional<TrainingRun> first_shared;
    for (const int stage : {0, 3, 2}) {
      shared.zero_stage = stage;
      if (stage == 2) shared.model.recompute = model::Recompute::full;
      CAPTURE(shape.tp_size, shape.dp_size, stage);
      const TrainingRun run = train(even_llama(), axes, shared);
      CHECK(compare(run, reference).loss <= 0.003);
      CHECK(std::abs(mean_of(run.losses) / mean_of(reference.losses) - 1) <= 0.001);
      if (first_shared) CHECK(bitwise_equal(run, *first_shared));
      if (!first_shared) first_shared = run;
    }
    if (shape.tp_size > 1) CHECK_FALSE(bitwise_equal(*first_shared, *first));  // it is shared
    TrainingOptions ends = options;
    ends.model.fp8.first_in_bf16 = 1;
    ends.model.fp8.last_in_bf16 = 1;
    ends.model.fp8.on = true;
    TrainingOptions none = options;
    none.model.fp8 = {};
    CHECK(bitwise_equal(train(even_llama(), axes, ends), train(even_llama(), axes, none)));
  }
}

TEST_CASE("a head by chunks of tokens trains as the whole one does", "[parity]") {
  at::set_num_threads(1);
  Meshes meshes;
  for (const model::DecoderConfig& config : {odd_llama(), odd_qwen2()}) {
    const TrainingRun reference = train_reference(config, {});
    for (const comm::MeshShape shape : layouts_of(session().size())) {
      for (const int64_t chunk : {1, 7, 24}) {  // 24: divides no micro-batch of 22 positions
        TrainingOptions options{.zero_stage = shape.dp_size > 1 ? 3 : 1,
                                .model = {.head_chunk_tokens = chunk}};
        CAPTURE(config.model_type, shape.tp_size, shape.dp_size, chunk);
        CHECK(within_contract(compare(train(config, meshes.axes(shape), options), reference)));
      }
    }
  }
}

TEST_CASE("a faulty reduction turns the parity suite red", "[parity][mutation]") {
  at::set_num_threads(1);
  Meshes meshes;
  const TrainingRun reference = train_reference(odd_llama(), {});
  const auto red = [&](const TrainingRun& run) {
    return !within_contract(compare(run, reference));
  };
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    const Axes axes = meshes.axes(shape);
    CAPTURE(shape.tp_size, shape.dp_size);
    const auto caught = [&](const TrainingOptions& options) {
      return red(train(odd_llama(), axes, options));
    };
    REQUIRE_FALSE(caught({.accumulation = 3}));  // right without a fault
    CHECK(caught({.accumulation = 3, .weight_micro_batches_equally = true}));
    for (const int stage : {1, 3}) {
      CAPTURE(stage);
      const auto with = [&](ReductionFault fault, SequenceParallel slices) {
        return caught({.zero_stage = stage,
                       .model = {.sequence_parallel = slices},
                       .reduction_fault = fault});
      };
      if (shape.dp_size > 1) {
        CHECK(with(ReductionFault::scale_dp_sum, SequenceParallel::off));
        CHECK(with(ReductionFault::skip_dp_reduction, SequenceParallel::off));
      }
      if (shape.tp_size > 1) {
        CHECK(with(ReductionFault::double_count_replicated_in_norm, SequenceParallel::off));
        CHECK(with(ReductionFault::drop_norm_sum_over_tp, SequenceParallel::off));
        CHECK(with(ReductionFault::drop_partial_sum_over_tp, SequenceParallel::on));
      }
      if (shape.tp_size > 1) {  // those of q_norm and k_norm are partial in any case
        const TrainingRun run =
            train(odd_qwen3(), axes,
                  {.steps = 2,
                   .zero_stage = stage,
                   .reduction_fault = ReductionFault::drop_partial_sum_over_tp});
        CHECK_FALSE(within_contract(compare(run, train_reference(odd_qwen3(), {.steps = 2}))));
      }
      if (shape.tp_size > 2)  // 2 kv heads: each on two ranks
        CHECK(with(ReductionFault::drop_copies_sum_over_tp, SequenceParallel::off));
    }
  }
}

TEST_CASE("each tp collective of a step, left out once, turns the parity suite red",
          "[parity][mutation][ranks:2]") {
  at::set_num_threads(1);
  Meshes meshes;
  const comm::MeshShape shape{.dp_size = 1, .tp_size = 2};  // one mesh is enough
  const TrainingRun reference = train_reference(odd_llama(), {.steps = 2});
  for (const SequenceParallel slices : {SequenceParallel::off, SequenceParallel::on}) {
    const TrainingOptions options{.steps = 2, .model = {.sequence_parallel = slices}};
    const auto run_with = [&](const Fault& fault, int64_t* strikes) {
      FaultyCommunicator tp(meshes.of(shape).tp(), fault);
      const TrainingRun run =
          train(odd_llama(), {.world = session(), .tp = tp, .dp = meshes.of(shape).dp()}, options);
      if (strikes != nullptr) *strikes = tp.strikes();
      return !within_contract(compare(run, reference));
    };
    REQUIRE_FALSE(run_with({}, nullptr));
    for (const Fault::Call call :
         {Fault::Call::all_reduce, Fault::Call::reduce_scatter, Fault::Call::all_gather}) {
      // Until no such call is left to strike; the last all-gather of a step is the norm's.
      int64_t n = 0;
      for (int64_t strikes = 1; strikes > 0 && n < 40; ++n) {
        const bool is_red = run_with({.call = call, .first = n, .last = n}, &strikes);
        CAPTURE(static_cast<int>(call), n, slices == SequenceParallel::on);
        if (strikes > 0) CHECK(is_red);
      }
      const bool expected = call == Fault::Call::all_reduce || slices == SequenceParallel::on;
      CAPTURE(static_cast<int>(call), slices == SequenceParallel::on);
      if (expected) CHECK(n > 3);
    }
  }
}

}  // namespace tptrain::testing
