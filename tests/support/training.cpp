#include "support/training.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/text.h"
#include "random/philox.h"
#include "support/gradient_scale.h"

namespace tptrain::testing {
namespace {

template <typename T>
void append(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <typename T>
T take(const std::string& bytes, size_t& at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  at += sizeof(T);
  return value;
}

double worst(const GlobalTensors& values, const GlobalTensors& reference,
             std::string& name_of_worst) {
  double worst_ratio = values.size() == reference.size() ? 0.0 : INFINITY;
  for (const auto& [name, expected] : reference) {
    const auto found = values.find(name);
    double largest = 0;
    for (const float scale : reference.at(gradient_scale_of(name, reference)))
      largest = std::max(largest, std::abs(static_cast<double>(scale)));
    double difference =
        found == values.end() || found->second.size() != expected.size() ? INFINITY : 0.0;
    for (size_t i = 0; i < expected.size() && std::isfinite(difference); ++i) {
      const double d = std::abs(static_cast<double>(found->second[i]) - expected[i]);
      difference = std::isnan(d) ? INFINITY : std::max(difference, d);
    }
    const double ratio = difference == 0 ? 0.0 : difference / largest;
    if (ratio >= worst_ratio) {
      worst_ratio = ratio;
      name_of_worst = name;
    }
  }
  return worst_ratio;
}

double worst(const std::vector<float>& values, const std::vector<float>& reference) {
  if (values.size() != reference.size()) return INFINITY;
  double worst_ratio = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double d =
        std::abs(static_cast<double>(values[i]) - reference[i]) / std::abs(reference[i]);
    worst_ratio = std::isnan(d) ? INFINITY : std::max(worst_ratio, d);
  }
  return worst_ratio;
}

}  // namespace

model::DecoderConfig odd_llama() {
  model::DecoderConfig config;
  config.model_type = "llama";
  config.vocab_size = 1003;
  config.hidden_size = 40;
  config.intermediate_size = 172;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 14;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.rope_theta = 1000.0;
  config.qkv_bias = true;
  config.o_bias = true;
  config.initializer_range = 0.05;
  return config;
}

model::DecoderConfig odd_qwen2() {
  model::DecoderConfig config = odd_llama();
  config.model_type = "qwen2";
  config.num_attention_heads = 6;
  config.num_key_value_heads = 1;
  config.head_dim = 6;
  config.o_bias = false;
  config.tie_word_embeddings = true;
  return config;
}

data::HostBatch parity_batch(int64_t step, int64_t first_sequence, int64_t count,
                             int64_t vocab_size) {
  data::HostBatch batch{.batch = count,
                        .seq_length = kSequenceLength,
                        .ids = {},
                        .targets = {},
                        .step = step,
                        .first_sample = first_sequence};
  for (int64_t s = first_sequence; s < first_sequence + count; ++s) {
    const auto key = random::philox_key(static_cast<uint64_t>(step), "parity batch");
    // A few frequent tokens with a rule between neighbours, so that there is something to learn in
    // 20 steps.
    int64_t token = static_cast<int64_t>(random::philox_below(key, static_cast<uint64_t>(s), 6)) *
                    17 % vocab_size;
    for (int64_t t = 0; t < kSequenceLength; ++t) {
      const bool jump =
          random::philox_uniform(key, static_cast<uint64_t>(1000 + s * kSequenceLength + t)) < 0.1;
      const int64_t next = jump ? (token + 31) % vocab_size : (token * 5 + 17) % 36;
      // Sequence s counts only its first 22 - 2s targets (and not each third of odd sequences); the
      // last three count nothing at all.
      const bool masked = s >= 9 || t >= kSequenceLength - 2 * s || (s % 2 == 1 && t % 3 == 0);
      batch.ids.push_back(token);
      batch.targets.push_back(masked ? -100 : next);
      token = next;
    }
  }
  return batch;
}

void mask_parity_documents(data::HostBatch& batch) {
  const auto key = random::philox_key(static_cast<uint64_t>(batch.step), "parity documents");
  for (int64_t row = 0; row < batch.batch; ++row) {
    const int64_t sequence = batch.first_sample + row;
    // Step 0 has few documents and step 3 many: a captured step must make room anew.
    const auto longest = static_cast<uint64_t>(batch.step % 4 == 3 ? 3 : 9);
    for (int64_t begin = 0, draw = 0; begin < batch.seq_length; ++draw) {
      const auto index = static_cast<uint64_t>(sequence * batch.seq_length + draw);
      const int64_t length =
          batch.step == 0 ? batch.seq_length / 2
                          : 1 + static_cast<int64_t>(random::philox_below(key, index, longest));
      const int64_t end = std::min(batch.seq_length, begin + length);
      batch.document_ends.push_back(row * batch.seq_length + end);
      batch.targets[static_cast<size_t>(row * batch.seq_length + end - 1)] = -100;
      begin = end;
    }
  }
}

namespace {

/// The sequences of a step from `first` on.
data::HostBatch batch_of(const TrainingOptions& options, int64_t step, int64_t first, int64_t count,
                         int64_t vocab_size) {
  data::HostBatch batch = parity_batch(step, first, count, vocab_size);
  if (options.document_mask == data::DocumentMask::on) mask_parity_documents(batch);
  return batch;
}

}  // namespace

GlobalTensors assemble(comm::ControlGroup& world, const sharding::StateDict& state,
                       sharding::StateKind kind) {
  std::string own;
  for (const sharding::StatePiece& piece : state.pieces) {
    if (piece.kind != kind || !piece.save) continue;
    append(own, piece.spec.name.size());
    own += piece.spec.name;
    append(own, piece.spec.global_numel());
    const at::Tensor values = piece.data.cpu().to(at::kFloat).contiguous();
    const auto runs = sharding::runs_of(piece.spec, piece.begin, piece.end);
    append(own, runs.size());
    for (const sharding::Run& run : runs) {
      append(own, run.global_begin);
      append(own, run.count);
      own.append(
          reinterpret_cast<const char*>(values.data_ptr<float>() + (run.local_begin - piece.begin)),
          run.count * sizeof(float));
    }
  }
  GlobalTensors whole;
  for (const std::string& bytes : world.all_gather(own)) {
    for (size_t at = 0; at < bytes.size();) {
      const auto length = take<size_t>(bytes, at);
      const std::string name = bytes.substr(at, length);
      at += length;
      std::vector<float>& tensor = whole[name];
      tensor.resize(take<int64_t>(bytes, at),
                    NAN);  // NAN: an element nobody holds fails every comparison
      for (auto runs = take<size_t>(bytes, at); runs > 0; --runs) {
        const auto begin = take<int64_t>(bytes, at);
        const auto count = take<int64_t>(bytes, at);
        std::memcpy(tensor.data() + begin, bytes.data() + at, count * sizeof(float));
        at += count * sizeof(float);
      }
    }
  }
  return whole;
}

TrainingRun train(const model::DecoderConfig& config, const Axes& axes,
                  const TrainingOptions& options) {
  zero::ZeroOptimizer::Options zero_options{
      .zero_stage = options.zero_stage,
      .optimizer = {},
      .reduce_per_micro_batch = options.reduce_per_micro_batch || options.zero_stage >= 2,
      .reduce_dtype = options.reduce_dtype,
      .seed = kSeed,
      .lookup_rows = options.lookup_rows};
  zero_options.optimizer.type = options.update_rule;
  zero_options.optimizer.weight_decay = 0.1;
  zero_options.optimizer.groups = options.groups;
  zero_options.optimizer.moments_dtype = options.moments_dtype;
  zero_options.optimizer.master_dtype = options.master_dtype;
  FaultyAxes faulty(axes.tp, axes.dp, options.reduction_fault);
  train::Engine engine({.decoder = config,
                        .training = options.model,
                        .zero = zero_options,
                        .dtype = options.dtype,
                        .gradient_dtype = options.gradient_dtype,
                        .cuda_graphs = options.cuda_graphs},
                       faulty.tp(), faulty.dp(), axes.device);
  faulty.watch(engine.buckets());
  engine.state().initialise(kSeed);

  const int64_t micro_batch_size = kGlobalBatch / (axes.dp.size() * options.accumulation);
  TrainingRun run;
  for (int64_t step = 0; step < options.steps; ++step) {
    const auto micro_batch_from = [&](int64_t first) {
      return batch_of(options, step, first, micro_batch_size, config.vocab_size);
    };
    int64_t most_documents = 0;
    for (int64_t first = 0; first < kGlobalBatch; first += micro_batch_size)
      most_documents = std::max(most_documents, micro_batch_from(first).documents());
    std::vector<train::MicroBatch> micro_batches;
    for (int64_t micro = 0; micro < options.accumulation; ++micro) {
      const int64_t first = (micro * axes.dp.size() + axes.dp.rank()) * micro_batch_size;
      micro_batches.push_back(
          train::to_device(micro_batch_from(first), axes.device, most_documents));
    }
    const int64_t target_tokens =
        options.weight_micro_batches_equally
            ? std::max<int64_t>(
                  1, micro_batch_from(axes.dp.rank() * micro_batch_size).target_tokens()) *
                  options.accumulation * axes.dp.size()
            : batch_of(options, step, 0, kGlobalBatch, config.vocab_size).target_tokens();
    const zero::StepNumbers result =
        engine.step(micro_batches, target_tokens, options.learning_rate, options.max_grad_norm);
    run.losses.push_back(result.losses[0].item<float>());
    run.norms.push_back(result.norm.item<float>());
    if (step == 0)
      run.first_gradients =
          assemble(axes.world, engine.state().gradient_pieces(), sharding::kMaster);
    if (step + 1 == options.steps)
      run.last_gradients =
          assemble(axes.world, engine.state().gradient_pieces(), sharding::kMaster);
  }
  run.masters = assemble(axes.world, engine.state().state_dict(), sharding::kMaster);
  return run;
}

TrainingRun train_reference(const model::DecoderConfig& config, const TrainingOptions& options) {
  comm::SingleRank world;
  const auto tp = comm::single_rank_communicator("tp");
  const auto dp = comm::single_rank_communicator("dp");
  TrainingOptions plain = options;
  plain.accumulation = 1;
  plain.zero_stage = 0;
  plain.reduce_per_micro_batch = false;
  plain.model.recompute = model::Recompute::none;
  plain.reduction_fault = ReductionFault::none;
  plain.weight_micro_batches_equally = false;
  return train(config, {.world = world, .tp = *tp, .dp = *dp}, plain);
}

Deviation compare(const TrainingRun& run, const TrainingRun& reference) {
  Deviation deviation;
  deviation.loss = worst(run.losses, reference.losses);
  deviation.norm = worst(run.norms, reference.norms);
  deviation.first_gradient =
      worst(run.first_gradients, reference.first_gradients, deviation.first_gradient_name);
  deviation.last_gradient =
      worst(run.last_gradients, reference.last_gradients, deviation.last_gradient_name);
  return deviation;
}

std::string row_of(const Deviation& deviation) {
  std::string row;
  for (const double value :
       {deviation.loss, deviation.norm, deviation.first_gradient, deviation.last_gradient}) {
    char buffer[32];
    std::snprintf(buffer, sizeof(buffer), "%.1e", value);
    row += cat(row.empty() ? "" : " ", buffer, " |");
  }
  return row;
}

bool within(const Deviation& deviation, const Deviation& most) {
  return deviation.loss <= most.loss && deviation.norm <= most.norm &&
         deviation.first_gradient <= most.first_gradient &&
         deviation.last_gradient <= most.last_gradient;
}

bool bitwise_equal(const TrainingRun& a, const TrainingRun& b) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  };
  if (!same(a.losses, b.losses) || !same(a.norms, b.norms)) return false;
  if (a.masters.size() != b.masters.size()) return false;
  for (const auto& [name, values] : a.masters) {
    const auto found = b.masters.find(name);
    if (found == b.masters.end() || !same(values, found->second)) return false;
  }
  return true;
}

}  // namespace tptrain::testing
