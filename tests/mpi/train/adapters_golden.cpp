// Against PEFT on transformers, in process: logits, loss and the gradient of everything that an
// adapter trains, read from the files that PEFT wrote (scripts/golden/make_adapters.py), on every
// tp and dp of the ranks.
#include <ATen/Parallel.h>

#include <filesystem>
#include <set>

#include "adapters/merged_source.h"
#include "adapters/peft_files.h"
#include "checkpoint/huggingface_source.h"
#include "model/adapter.h"
#include "support/golden_checks.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

struct GoldenAdapter {
  fs::path directory;
  GoldenModel model;  // the base's configuration; the numbers are the adapter's
  config::AdapterConfig adapter;
  sharding::StoredModel stored;
  GoldenNumbers numbers;

  explicit GoldenAdapter(const fs::path& at)
      : directory(at),
        model(fs::path(TPTRAIN_GOLDEN) / "models" / adapters::peft_config_of(at).base_model),
        adapter(adapters::read_peft_config(at, model.config())),
        stored(model::stored_adapter(model.config(), adapter)),
        numbers(at) {}

  std::unique_ptr<sharding::TensorSource> base() const {
    return std::make_unique<checkpoint::HuggingFaceSource>(model.directory(), model.stored());
  }
  std::unique_ptr<sharding::TensorSource> factors() const {
    return adapters::open_peft(directory, model.config(), adapter);
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

}  // namespace

TEST_CASE("logits of a base with its adapter are PEFT's, merged and beside it", "[golden]") {
  at::set_num_threads(1);
  for (const std::string& name : cases()) {
    const GoldenAdapter of = golden(name);
    CAPTURE(name);
    if (!model::check_tp_size(of.model.config(), session().size()).empty()) continue;
    const adapters::MergedSource merged(of.base(), of.factors(), of.model.config(), of.adapter);
    CHECK(worst_logits(of.numbers, of.model.config(), {}, merged) <= kLargestLogitError);
    CHECK(worst_logits(of.numbers, of.model.config(), {.adapter = of.adapter}, Both(of)) <=
          kLargestLogitError);
  }
}

TEST_CASE("loss and gradients of what an adapter trains are PEFT's", "[golden]") {
  at::set_num_threads(1);
  for (const std::string& name : cases()) {
    const GoldenAdapter of = golden(name);
    for (const comm::MeshShape shape : layouts_for(of.model.config())) {
      CAPTURE(name, shape.tp_size, shape.dp_size);
      check_golden_gradients(
          of.numbers, of.model.config(),
          {.sequence_parallel = tensor_parallel::SequenceParallel::on, .adapter = of.adapter},
          of.stored, Both(of), shape);
    }
  }
}

}  // namespace tptrain::testing
