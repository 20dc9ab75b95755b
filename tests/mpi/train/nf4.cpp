// Adapters beside a base in NF4: the training is that beside the base's dequantised values, bit by
// bit on one rank, and the same on every layout.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <map>

#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "support/training.h"
#include "tensor_parallel/nf4_base.h"
#include "train/adapter_start.h"
#include "train/engine.h"

namespace tptrain::testing {
namespace {

constexpr int64_t kSteps = 3;

// tp 2 cuts between blocks of 64.
model::DecoderConfig decoder_config() {
  model::DecoderConfig config;
  config.model_type = "llama";
  config.vocab_size = 300;
  config.hidden_size = 128;
  config.intermediate_size = 256;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  config.rope_theta = 1000.0;
  config.initializer_range = 0.05;
  return config;
}

config::AdapterConfig adapter(config::BaseDtype base_dtype) {
  config::AdapterConfig adapter;
  adapter.rank = 4;
  adapter.alpha = 8;
  adapter.base_dtype = base_dtype;
  return adapter;
}

/// A source's tensors as NF4 makes them, where `names` says so.
class Dequantised final : public sharding::TensorSource {
 public:
  Dequantised(const sharding::TensorSource& source,
              const std::vector<parameters::Parameter*>& packed)
      : source_(source) {
    for (const parameters::Parameter* parameter : packed) {
      for (const parameters::NamedSlice& slice : parameter->slices) {
        const std::vector<int64_t>& shape = slice.spec.global_shape;
        parameters::Parameter whole;
        whole.shape = shape;
        whole.slices.push_back({.spec = sharding::whole_tensor(slice.spec.name, shape)});
        tensor_parallel::Nf4Base base({&whole}, {});
        base.load(source);
        values_[slice.spec.name] = whole.values().flatten().clone();
      }
    }
  }
  std::vector<sharding::TensorInfo> tensors() const override { return source_.tensors(); }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    const auto found = values_.find(spec.name);
    if (found == values_.end()) return source_.read_slice(spec, begin, end, out);
    for (const sharding::Run& run : sharding::runs_of(spec, begin, end)) {
      out.narrow(0, run.local_begin - begin, run.count)
          .copy_(found->second.narrow(0, run.global_begin, run.count));
    }
  }

 private:
  const sharding::TensorSource& source_;
  std::map<std::string, at::Tensor> values_;
};

struct Result {
  std::vector<double> losses;
  GlobalTensors masters;
};

enum class Base { nf4, dequantised, plain };

Result train(const comm::MeshShape& shape, int zero_stage, Base base) {
  comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
  const auto options = [&](config::BaseDtype base_dtype) {
    return train::Engine::Options{
        .decoder = decoder_config(),
        .training = {.sequence_parallel = tensor_parallel::SequenceParallel::on,
                     .adapter = adapter(base_dtype)},
        .zero = {.zero_stage = zero_stage,
                 .reduce_per_micro_batch = zero_stage >= 2,
                 .frozen_values = zero::FrozenValues::elsewhere}};
  };
  train::Engine packing(options(config::BaseDtype::nf4), mesh.tp(), mesh.dp(), at::kCPU);
  train::Engine plain(options(config::BaseDtype::automatic), mesh.tp(), mesh.dp(), at::kCPU);
  train::Engine& engine = base == Base::nf4 ? packing : plain;
  const train::AdapterStart values(plain.decoder(), {.seed = kSeed});
  if (base == Base::dequantised) {
    engine.state().load_parameters(Dequantised(values, packing.decoder().packed_parameters()));
  } else {
    engine.state().load_parameters(values);
  }
  engine.load_packed(values);
  Result result;
  for (int64_t step = 0; step < kSteps; ++step) {
    const int64_t rows = kGlobalBatch / shape.dp_size;
    const data::HostBatch batch =
        parity_batch(step, mesh.dp_rank() * rows, rows, decoder_config().vocab_size);
    const int64_t targets =
        parity_batch(step, 0, kGlobalBatch, decoder_config().vocab_size).target_tokens();
    const auto numbers = engine.step({train::to_device(batch, at::kCPU)}, targets, 1e-2, 1.0);
    result.losses.push_back(numbers.losses[0].item<double>());
  }
  result.masters = assemble(session(), engine.state().state_dict(), sharding::kMaster);
  return result;
}

double worst_difference(const Result& a, const Result& b) {
  REQUIRE(a.masters.size() == b.masters.size());
  double worst = 0;
  for (const auto& [name, values] : a.masters) {
    const std::vector<float>& other = b.masters.at(name);
    REQUIRE(values.size() == other.size());
    for (size_t i = 0; i < values.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(values[i]) - other[i]));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("beside a base in NF4 an adapter trains as beside its dequantised values", "[nf4]") {
  at::set_num_threads(1);
  const int ranks = session().size();
  const Result whole = train({.dp_size = ranks, .tp_size = 1}, 1, Base::nf4);
  const Result values = train({.dp_size = ranks, .tp_size = 1}, 1, Base::dequantised);
  CHECK(whole.losses == values.losses);
  CHECK(worst_difference(whole, values) == 0);
  const Result exact = train({.dp_size = ranks, .tp_size = 1}, 1, Base::plain);
  CHECK(std::abs(exact.losses.front() - whole.losses.front()) > 1e-6);  // it does quantise
  CHECK(std::abs(exact.losses.front() - whole.losses.front()) < 0.05);
  if (ranks == 1) return;
  for (const int zero_stage : {0, 3}) {
    const Result cut = train({.dp_size = 1, .tp_size = ranks}, zero_stage, Base::nf4);
    for (size_t i = 0; i < whole.losses.size(); ++i) {
      CHECK(std::abs(cut.losses[i] / whole.losses[i] - 1) < 2e-6);
    }
    CHECK(worst_difference(cut, whole) < 1e-3);  // Adam's first steps are signs of gradients
  }
}

}  // namespace tptrain::testing
