// Small Hugging Face directories of a model that has every stored form: matrices and vectors as
// they are, and a matrix that is stored transposed and fused of three. A value is a function of its
// canonical tensor and element alone, and survives bf16.
#pragma once

#include <ATen/Functions.h>

#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "formats/float_convert.h"
#include "formats/safetensors.h"
#include "sharding/state_dict.h"
#include "sharding/stored_model.h"
#include "support/temp_dir.h"

namespace tptrain::testing {

inline int64_t numel_of(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

inline float stored_value(const std::string& name, int64_t element) {
  // Up to 8 bits: exact in bf16 and f16.
  return static_cast<float>((element * 7 + static_cast<int64_t>(name.size()) * 31) % 251) - 100.0f;
}

inline sharding::StoredModel small_stored_model() {
  sharding::StoredModel model;
  const auto plain = [&](const std::string& name, std::vector<int64_t> shape) {
    model.tensors.push_back({name, shape, "transformer." + name, shape});
  };
  plain("embed.weight", {37, 6});
  plain("norm.weight", {6});
  const std::vector<std::pair<std::string, int64_t>> parts = {{"q", 6}, {"k", 4}, {"v", 4}};
  int64_t first = 0;
  for (const auto& [part, rows] : parts) {
    model.tensors.push_back({part + ".weight",
                             {rows, 6},
                             "transformer.c_attn.weight",
                             {6, 14},
                             /*transposed=*/true,
                             first});
    first += rows;
  }
  first = 0;
  for (const auto& [part, rows] : parts) {
    model.tensors.push_back(
        {part + ".bias", {rows}, "transformer.c_attn.bias", {14}, /*transposed=*/false, first});
    first += rows;
  }
  // Larger than the tiles in which transposed tensors are read and written.
  model.tensors.push_back({"up.weight", {150, 70}, "transformer.up.weight", {70, 150}, true, 0});
  model.ignored_suffixes = {".attn.mask", "lm_head.weight"};
  model.optional_prefix = "transformer.";
  return model;
}

/// The fp32 values of one stored tensor, out of its parts.
inline std::vector<float> stored_values(const sharding::StoredModel& model,
                                        const std::string& stored_name) {
  std::vector<float> values;
  for (const sharding::StoredTensor& part : model.tensors) {
    if (part.stored_name != stored_name) continue;
    values.resize(static_cast<size_t>(numel_of(part.stored_shape)));
    const int64_t columns = part.shape.size() == 2 ? part.shape[1] : 1;
    for (int64_t r = 0; r < part.shape[0]; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t at = part.transposed ? c * part.stored_shape[1] + part.first + r
                                           : (part.first + r) * columns + c;
        values[static_cast<size_t>(at)] = stored_value(part.name, r * columns + c);
      }
    }
  }
  return values;
}

/// One file with these tensors of the model (all where `names` is empty), as `dtype`.
struct StoredFile {
  std::string file = "model.safetensors";
  std::vector<std::string> names = {};  // stored names
  formats::Dtype dtype = formats::Dtype::f32;
  std::string dropped_prefix = {};
  std::vector<formats::SafetensorsEntry> extra = {};  // written as zeros
};

inline void write_stored_file(const std::filesystem::path& directory,
                              const sharding::StoredModel& model, StoredFile what = {}) {
  std::vector<formats::SafetensorsEntry> entries;
  std::vector<std::vector<float>> values;
  for (const sharding::StoredTensor& tensor : model.tensors) {
    const std::string& name = tensor.stored_name;
    const bool chosen = what.names.empty() ||
                        std::find(what.names.begin(), what.names.end(), name) != what.names.end();
    if (tensor.first != 0 || !chosen) continue;
    values.push_back(stored_values(model, name));
    const bool drop = !what.dropped_prefix.empty() && name.starts_with(what.dropped_prefix);
    entries.push_back({.name = drop ? name.substr(what.dropped_prefix.size()) : name,
                       .dtype = what.dtype,
                       .shape = tensor.stored_shape});
  }
  const size_t own = entries.size();
  entries.insert(entries.end(), what.extra.begin(), what.extra.end());
  std::filesystem::create_directories(directory);
  formats::SafetensorsWriter writer(directory / what.file, entries);
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < entries.size(); ++i) {
    bytes.assign(static_cast<size_t>(*formats::tensor_bytes(entries[i].dtype, entries[i].shape)),
                 std::byte{0});
    if (i < own) {
      formats::from_float32(what.dtype, values[i].data(), bytes.data(),
                            static_cast<int64_t>(values[i].size()));
    }
    writer.write(bytes.data(), bytes.size());
  }
  writer.commit();
}

/// A source of exactly those values.
class ComputedSource final : public sharding::TensorSource {
 public:
  explicit ComputedSource(sharding::StoredModel model) : model_(std::move(model)) {}
  std::vector<sharding::TensorInfo> tensors() const override {
    std::vector<sharding::TensorInfo> infos;
    for (const auto& tensor : model_.tensors) infos.push_back({tensor.name, tensor.shape});
    return infos;
  }
  void read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                  at::Tensor& out) const override {
    largest_read = std::max(largest_read, end - begin);
    float* values = out.data_ptr<float>();
    for (const sharding::Run& run : sharding::runs_of(spec, begin, end)) {
      for (int64_t i = 0; i < run.count; ++i) {
        values[run.local_begin - begin + i] = stored_value(spec.name, run.global_begin + i);
      }
    }
  }
  mutable int64_t largest_read = 0;

 private:
  sharding::StoredModel model_;
};

}  // namespace tptrain::testing
