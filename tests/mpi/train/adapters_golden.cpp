// Against PEFT on transformers, in process: logits, loss and the gradient of everything that an
// adapter trains, read from the files that PEFT wrote (scripts/golden/make_adapters.py), on every
// tp and dp of the ranks.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "adapters/merged_source.h"
#include "adapters/peft_files.h"
#include "base/files.h"
#include "checkpoint/huggingface_source.h"
#include "comm/device_mesh.h"
#include "model/adapter.h"
#include "model/kv_cache.h"
#include "parameters/parameter_store.h"
#include "support/catch.h"
#include "support/golden.h"
#include "support/mpi.h"
#include "support/training.h"
#include "train/engine.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

struct GoldenAdapter {
  fs::path directory;
  GoldenModel model;  // the base's configuration; the numbers are the adapter's
  config::AdapterConfig adapter;
  sharding::StoredModel stored;
  formats::SafetensorsFile numbers;

  explicit GoldenAdapter(const fs::path& at)
      : directory(at),
        model(fs::path(TPTRAIN_GOLDEN) / "models" / adapters::peft_config_of(at).base_model),
        adapter(adapters::read_peft_config(at, model.config())),
        stored(model::stored_adapter(model.config(), adapter)),
        numbers(at / "golden.safetensors") {}

  std::unique_ptr<sharding::TensorSource> base() const {
    return std::make_unique<checkpoint::HuggingFaceSource>(model.directory(), model.stored());
  }
  std::unique_ptr<sharding::TensorSource> factors() const {
    return adapters::open_peft(directory, model.config(), adapter);
  }
  at::Tensor tensor(const std::string& name) const {
    const formats::SafetensorsEntry* entry = numbers.find(name);
    if (entry == nullptr) throw std::runtime_error(name + " is not golden");
    const at::ScalarType type = entry->dtype == formats::Dtype::i64 ? at::kLong : at::kFloat;
    at::Tensor values = at::empty(entry->shape, type);
    const auto bytes = numbers.bytes(*entry);
    std::memcpy(values.mutable_data_ptr(), bytes.data(), bytes.size());
    return values;
  }
};

std::vector<std::string> cases() { return {"llama", "qwen2", "qwen3", "gpt2"}; }

GoldenAdapter golden(const std::string& name) {
  return GoldenAdapter(fs::path(TPTRAIN_GOLDEN) / "adapters" / name);
}

/// What the adapter holds from the one, all else from the other.
class Both final : public sharding::TensorSource {
 public:
  explicit Both(const GoldenAdapter& of) : base_(of.base()), factors_(of.factors()) {
    for (const sharding::TensorInfo& info : factors_->tensors()) names_.insert(info.name);
  }
  std::vector<sharding::TensorInfo> tensors() const override { return base_->tensors(); }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    (names_.contains(spec.name) ? factors_ : base_)->read_slice(spec, begin, end, out);
  }

 private:
  std::unique_ptr<sharding::TensorSource> base_, factors_;
  std::set<std::string> names_;
};

std::vector<comm::MeshShape> layouts(const model::DecoderConfig& config) {
  std::vector<comm::MeshShape> found;
  for (int tp = 1; tp <= session().size(); ++tp) {
    if (session().size() % tp != 0 || !model::check_tp_size(config, tp).empty()) continue;
    found.push_back({.dp_size = session().size() / tp, .tp_size = tp});
  }
  return found;
}

double worst_logits(const GoldenAdapter& of, const model::TrainingOptions& options,
                    const sharding::TensorSource& source) {
  comm::DeviceMesh mesh(session(), {.dp_size = 1, .tp_size = session().size()},
                        comm::DeviceType::cpu);
  model::Decoder decoder(of.model.config(), mesh.tp(), options);
  parameters::ParameterStore store(parameters::whole_layout(decoder.blocks()), {});
  parameters::load_parameters(store.values(), source);
  const at::Tensor ids = of.tensor("input_ids").t().contiguous();  // [T, B]
  const at::Tensor expected = of.tensor("logits");                 // [B, T, V]
  const auto cache = decoder.make_cache(ids.size(1), ids.size(0));
  double worst = 0;
  for (int64_t begin = 0, end = 5; begin < ids.size(0); begin = end, end = begin + 1) {
    const at::Tensor logits =
        decoder.next_token_logits(ids.narrow(0, begin, end - begin).contiguous(), *cache);
    worst = std::max(worst, (logits - expected.select(1, end - 1)).abs().max().item<double>());
  }
  return worst;
}

}  // namespace

TEST_CASE("logits of a base with its adapter are PEFT's, merged and beside it", "[golden]") {
  at::set_num_threads(1);
  for (const std::string& name : cases()) {
    const GoldenAdapter of = golden(name);
    CAPTURE(name);
    if (!model::check_tp_size(of.model.config(), session().size()).empty()) continue;
    const adapters::MergedSource merged(of.base(), of.factors(), of.model.config(), of.adapter);
    CHECK(worst_logits(of, {}, merged) <= 1e-4);
    CHECK(worst_logits(of, {.adapter = of.adapter}, Both(of)) <= 1e-4);
  }
}

TEST_CASE("loss and gradients of what an adapter trains are PEFT's", "[golden]") {
  at::set_num_threads(1);
  for (const std::string& name : cases()) {
    const GoldenAdapter of = golden(name);
    for (const comm::MeshShape shape : layouts(of.model.config())) {
      CAPTURE(name, shape.tp_size, shape.dp_size);
      comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
      train::Engine engine({.decoder = of.model.config(),
                            .training = {.sequence_parallel = tensor_parallel::SequenceParallel::on,
                                         .adapter = of.adapter},
                            .zero = {.zero_stage = shape.dp_size > 1 ? 3 : 1}},
                           mesh.tp(), mesh.dp(), at::kCPU);
      engine.state().load_parameters(Both(of));

      const at::Tensor ids = of.tensor("input_ids");
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
      const auto gradients = as_stored(
          of.stored, assemble(session(), engine.state().gradient_pieces(), sharding::kMaster));
      mesh.dp().all_reduce(losses, comm::ReduceOp::sum);

      CHECK(std::abs(losses[0].item<double>() - of.tensor("loss").item<double>()) <= 1e-5);
      CHECK(gradients.size() > 0);
      for (const auto& [tensor, gradient] : gradients) {
        CAPTURE(tensor);
        const at::Tensor expected = of.tensor("grad." + tensor).flatten();
        const at::Tensor received = at::tensor(gradient, at::kFloat);
        const double largest = expected.abs().max().item<double>();
        CHECK((received - expected).abs().max().item<double>() <= 1e-5 * largest);
      }
    }
  }
}

}  // namespace tptrain::testing
