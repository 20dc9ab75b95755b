// A base with its adapter added in: the sum of plain ATen, bit by bit the same in every slice.
#include "adapters/merged_source.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/peft_files.h"
#include "base/files.h"
#include "checkpoint/huggingface_source.h"
#include "model/adapter.h"
#include "model/families/family.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;
using sharding::ShardSpec;
using sharding::TensorSource;

struct Opened {
  model::DecoderConfig decoder;
  config::AdapterConfig adapter;
  std::unique_ptr<TensorSource> base, factors, merged;
};

Opened open(const std::string& name) {
  const fs::path golden(TPTRAIN_GOLDEN);
  const fs::path directory = golden / "adapters" / name;
  const fs::path base = golden / "models" / adapters::peft_config_of(directory).base_model;
  Opened opened;
  opened.decoder = model::decoder_config_from_json(read_file(base / "config.json", 1 << 20), name);
  opened.adapter = adapters::read_peft_config(directory, opened.decoder);
  const auto weights = [&] {
    return std::make_unique<checkpoint::HuggingFaceSource>(base,
                                                           model::stored_model(opened.decoder));
  };
  const auto factors = [&] {
    return adapters::open_peft(directory, opened.decoder, opened.adapter);
  };
  opened.base = weights();
  opened.factors = factors();
  opened.merged = std::make_unique<adapters::MergedSource>(weights(), factors(), opened.decoder,
                                                           opened.adapter);
  return opened;
}

at::Tensor whole(const TensorSource& source, const std::string& name,
                 const std::vector<int64_t>& shape) {
  const ShardSpec spec = sharding::whole_tensor(name, shape);
  at::Tensor out = at::empty({spec.global_numel()}, at::kFloat);
  source.read_slice(spec, 0, spec.global_numel(), out);
  return out.view(shape);
}

TEST_CASE("a merged weight is the base's and the product of the adapter's factors") {
  for (const char* name : {"llama", "qwen2", "qwen3", "gpt2"}) {
    const Opened opened = open(name);
    const double scale = model::adapter_scale(opened.adapter);
    int64_t changed = 0;
    for (const model::AdapterSite& site : model::adapter_sites(opened.decoder, opened.adapter)) {
      for (const auto& [linear, out] : site.linears) {
        CAPTURE(linear);
        const std::vector<int64_t> shape = {out, site.in};
        const int64_t rank = opened.adapter.rank;
        const at::Tensor a = whole(*opened.factors, site.name + ".lora_A.weight", {rank, shape[1]});
        const at::Tensor b = whole(*opened.factors, linear + ".lora_B.weight", {shape[0], rank});
        const at::Tensor expected = whole(*opened.base, linear + ".weight", shape).to(at::kDouble) +
                                    scale * at::matmul(b.to(at::kDouble), a.to(at::kDouble));
        const at::Tensor merged = whole(*opened.merged, linear + ".weight", shape);
        CHECK((merged.to(at::kDouble) - expected).abs().max().item<double>() < 1e-6);
        ++changed;
      }
    }
    CHECK(changed >= 6);
  }
}

TEST_CASE("each element of a merged weight is the same in every slice") {
  const Opened opened = open("gpt2");
  for (const sharding::TensorInfo& info : opened.base->tensors()) {
    if (info.shape.size() != 2) continue;
    CAPTURE(info.name);
    const at::Tensor all = whole(*opened.merged, info.name, info.shape);
    for (const int64_t dim : {0, 1}) {
      const int64_t extent = info.shape[static_cast<size_t>(dim)];
      const int64_t begin = extent / 3;
      const ShardSpec spec = sharding::slice_of(info.name, info.shape, dim, begin, extent);
      const int64_t numel = spec.local_numel();
      const at::Tensor expected = all.narrow(dim, begin, extent - begin).contiguous().view({-1});
      const std::vector<std::pair<int64_t, int64_t>> ranges = {
          {0, numel}, {numel / 5, numel / 2}, {numel / 3, numel}, {7, 8}};
      for (const auto& [from, to] : ranges) {
        at::Tensor part = at::empty({to - from}, at::kFloat);
        opened.merged->read_slice(spec, from, to, part);
        CHECK(at::equal(part, expected.narrow(0, from, to - from)));
      }
    }
  }
}

TEST_CASE("what trained whole is the adapter's, and all else the base's") {
  const Opened opened = open("llama");
  const std::vector<int64_t> table = {opened.decoder.vocab_size, opened.decoder.hidden_size};
  for (const char* name : {"lm_head.weight", "model.embed_tokens.weight"}) {
    CHECK(at::equal(whole(*opened.merged, name, table), whole(*opened.factors, name, table)));
    CHECK_FALSE(at::equal(whole(*opened.merged, name, table), whole(*opened.base, name, table)));
  }
  const std::vector<int64_t> norm = {opened.decoder.hidden_size};
  CHECK(at::equal(whole(*opened.merged, "model.norm.weight", norm),
                  whole(*opened.base, "model.norm.weight", norm)));
}

}  // namespace
}  // namespace tptrain::testing
