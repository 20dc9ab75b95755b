#include "checkpoint/huggingface_source.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "base/work.h"
#include "checkpoint/stored_parts.h"
#include "formats/float_convert.h"

namespace tptrain::checkpoint {

namespace {

using formats::SafetensorsEntry;
using sharding::StoredTensor;

constexpr const char* kModelOfConfig = "the model in config.json";

int64_t numel(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string shape_text(const std::vector<int64_t>& shape) { return cat("[", join(shape), "]"); }

std::string without_prefix(const std::string& name, const std::string& prefix) {
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

// The prefix that this directory's files lack: gpt2's own call "transformer.wte.weight" just
// "wte.weight", and base models lack "model.". Where nothing of the model is found in either
// spelling, the full names are those to ask for.
std::string prefix_to_drop(const HuggingFaceFiles& files, const sharding::StoredModel& model) {
  const std::string& prefix = model.optional_prefix;
  if (prefix.empty()) return "";
  for (const auto& [name, unused] : files.tensors()) {
    if (name.starts_with(prefix)) return "";
  }
  const bool found = std::any_of(
      model.tensors.begin(), model.tensors.end(), [&](const sharding::StoredTensor& tensor) {
        return tensor.stored_name.starts_with(prefix) &&
               files.tensors().contains(without_prefix(tensor.stored_name, prefix));
      });
  return found ? prefix : "";
}

// What is read as fp32 is written as fp32.
formats::Dtype written_as(formats::Dtype stored) {
  return stored == formats::Dtype::f64 ? formats::Dtype::f32 : stored;
}

// The stored bytes of one tensor as elements.
struct Elements {
  std::span<const std::byte> bytes;
  formats::Dtype dtype;
  int64_t element_bytes;

  Elements(std::span<const std::byte> bytes, formats::Dtype dtype)
      : bytes(bytes), dtype(dtype), element_bytes(formats::dtype_bits(dtype) / 8) {}

  void copy(int64_t first, int64_t count, float* out) const {
    formats::to_float32(dtype, bytes.data() + first * element_bytes, out, count);
  }
  std::span<const std::byte> range(int64_t first, int64_t end) const {
    return bytes.subspan(static_cast<size_t>(first * element_bytes),
                         static_cast<size_t>((end - first) * element_bytes));
  }
};

// Part of a tensor stored transposed: out[r, c] = stored[first_column + c, first_row + r] for r in
// [0, rows) and c in [0, columns); rows of `out` are `out_stride` apart, stored ones
// `stored_stride`.
struct Transposed {
  int64_t first_row;
  int64_t rows;
  int64_t first_column;
  int64_t columns;
  int64_t stored_stride;
};

void copy_transposed(const Elements& stored, const Transposed& part, float* out,
                     int64_t out_stride) {
  // Tiles: runs of 64 elements are read where they lie, and whole cache lines are written.
  constexpr int64_t kRows = 64;
  constexpr int64_t kColumns = 16;
  std::array<float, kRows * kColumns> tile;
  for (int64_t c0 = 0; c0 < part.columns; c0 += kColumns) {
    const int64_t columns = std::min(kColumns, part.columns - c0);
    for (int64_t r0 = 0; r0 < part.rows; r0 += kRows) {
      const int64_t rows = std::min(kRows, part.rows - r0);
      for (int64_t c = 0; c < columns; ++c) {
        stored.copy((part.first_column + c0 + c) * part.stored_stride + part.first_row + r0, rows,
                    tile.data() + c * kRows);
      }
      for (int64_t r = 0; r < rows; ++r) {
        float* row = out + (r0 + r) * out_stride + c0;
        for (int64_t c = 0; c < columns; ++c) row[c] = tile[c * kRows + r];
      }
    }
  }
}

// The elements [begin, end) of the slice of a matrix stored transposed: at most one row that is cut
// at its front, whole rows, one that is cut at its end.
void read_transposed(const Elements& stored, const StoredTensor& tensor,
                     const sharding::ShardSpec& spec, int64_t begin, int64_t end, float* out) {
  const int64_t width = spec.local_shape()[1];
  if (width == 0) return;
  const int64_t row_offset = tensor.first + (spec.dim == 0 ? spec.begin : 0);
  const int64_t column_offset = spec.dim == 1 ? spec.begin : 0;
  const int64_t stride = tensor.stored_shape[1];
  for (int64_t at = begin; at < end;) {
    const int64_t column = at % width;
    const int64_t rows = column == 0 ? std::max<int64_t>((end - at) / width, 1) : 1;
    const int64_t columns = std::min(width - column, end - at);
    copy_transposed(stored,
                    {.first_row = row_offset + at / width,
                     .rows = rows,
                     .first_column = column_offset + column,
                     .columns = columns,
                     .stored_stride = stride},
                    out + (at - begin), width);
    at += rows * columns;
  }
}

[[noreturn]] void refuse_missing_head(const std::filesystem::path& directory) {
  throw DataError(
      problem("lm_head.weight is missing, and config.json says that it is not tied to the "
              "embedding")
          .at(directory.string())
          .must("hold the head's weights, or have tie_word_embeddings: true in config.json")
          .remedy("Without a head nothing can be predicted, and transformers would begin with "
                  "random values. Where the model was trained with one table for both, say so in "
                  "config.json; a base model saved without its head has to be saved with it."));
}

struct Count {
  int64_t number = 0;
  const char* what = "";
};

[[noreturn]] void refuse_other_tensors(const std::filesystem::path& directory,
                                       const std::string& whose, const std::vector<Count>& counts,
                                       const std::vector<std::string>& lines) {
  std::vector<std::string> counted;
  for (const auto& [number, what] : counts) {
    if (number > 0) counted.push_back(cat(number, " ", what));
  }
  throw DataError(
      problem(cat("the tensors are not those of ", whose, ": ", join(counted)))
          .at(directory.string())
          .must("hold each of its tensors and no other")
          .remedy(cat("Check that the weights and the config beside them belong together.\n",
                      capped_list(lines))));
}

}  // namespace

HuggingFaceSource::HuggingFaceSource(const std::filesystem::path& directory,
                                     sharding::StoredModel model)
    : HuggingFaceSource(HuggingFaceFiles(directory), std::move(model), kModelOfConfig) {}

HuggingFaceSource::HuggingFaceSource(HuggingFaceFiles files, sharding::StoredModel model,
                                     const std::string& whose)
    : files_(std::move(files)), model_(std::move(model)) {
  check_stored_model(model_);
  check_all(whose);
}

void HuggingFaceSource::check_all(const std::string& whose) {
  const std::string dropped = prefix_to_drop(files_, model_);
  std::vector<std::string> lines;
  int64_t missing = 0;
  int64_t wrong_shape = 0;
  int64_t wrong_dtype = 0;
  int64_t extra = 0;
  std::set<std::string> wanted;
  std::map<formats::Dtype, int64_t> elements_of;
  for (const StoredTensor& tensor : model_.tensors) {
    const std::string name = without_prefix(tensor.stored_name, dropped);
    const bool first_part = wanted.insert(name).second;
    const auto stored = files_.tensors().find(name);
    if (stored == files_.tensors().end()) {
      if (!first_part) continue;
      ++missing;
      lines.push_back(cat("missing: ", name, " ", shape_text(tensor.stored_shape)));
      continue;
    }
    const SafetensorsEntry& entry = *stored->second.entry;
    const formats::SafetensorsFile& file = files_.files()[stored->second.file].file;
    found_.emplace(tensor.name, Found{&tensor, &file, &entry});
    if (!first_part) continue;
    elements_of[entry.dtype] += numel(tensor.stored_shape);
    if (entry.shape != tensor.stored_shape) {
      ++wrong_shape;
      lines.push_back(cat("other shape: ", name, " is ", shape_text(entry.shape), ", it must be ",
                          shape_text(tensor.stored_shape)));
    }
    if (!formats::is_readable_dtype(entry.dtype)) {
      ++wrong_dtype;
      lines.push_back(cat("other type: ", name, " is ", formats::dtype_name(entry.dtype)));
    }
  }
  for (const auto& [name, stored] : files_.tensors()) {
    const bool ignored =
        std::any_of(model_.ignored_suffixes.begin(), model_.ignored_suffixes.end(),
                    [&name = name](const std::string& suffix) { return name.ends_with(suffix); });
    if (ignored || wanted.contains(name)) continue;
    ++extra;
    lines.push_back(cat("not one of them: ", formats::quoted_name(name), " ",
                        shape_text(stored.entry->shape), " in ", files_.files()[stored.file].name));
  }
  if (whose == kModelOfConfig && missing == 1 && lines.size() == 1 &&
      found_.count("lm_head.weight") == 0 && found_.size() + 1 == model_.tensors.size())
    refuse_missing_head(directory());
  if (!lines.empty()) {
    refuse_other_tensors(directory(), whose,
                         {{missing, "missing"},
                          {wrong_shape, "of another shape"},
                          {wrong_dtype, "of another type than F32, BF16, F16 and F64"},
                          {extra, "that it does not have"}},
                         lines);
  }
  const auto most = std::max_element(elements_of.begin(), elements_of.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  if (most != elements_of.end()) stored_dtype_ = most->first;
}

std::vector<sharding::TensorInfo> HuggingFaceSource::tensors() const {
  std::vector<sharding::TensorInfo> infos;
  for (const StoredTensor& tensor : model_.tensors) infos.push_back({tensor.name, tensor.shape});
  return infos;
}

std::map<std::string, formats::Dtype> HuggingFaceSource::stored_dtypes() const {
  std::map<std::string, formats::Dtype> dtypes;
  for (const auto& [name, found] : found_) {
    dtypes.emplace(found.tensor->stored_name, written_as(found.entry->dtype));
  }
  return dtypes;
}

const HuggingFaceSource::Found& HuggingFaceSource::found(const sharding::ShardSpec& spec) const {
  const auto found = found_.find(spec.name);
  if (found == found_.end()) {
    throw CheckpointError(
        problem(cat("the model has no tensor ", spec.name)).at(directory().string()));
  }
  const StoredTensor& tensor = *found->second.tensor;
  if (tensor.shape != spec.global_shape) {
    throw CheckpointError(problem(cat("tensor ", spec.name, " has shape ", shape_text(tensor.shape),
                                      ", not ", shape_text(spec.global_shape)))
                              .at(directory().string()));
  }
  return found->second;
}

void HuggingFaceSource::read_slice(const sharding::ShardSpec& spec, int64_t begin, int64_t end,
                                   at::Tensor& out) const {
  const bool fits = out.defined() && out.dim() == 1 && out.numel() == end - begin &&
                    out.scalar_type() == at::kFloat && out.is_cpu() && out.is_contiguous();
  if (!fits || begin < 0 || end > spec.local_numel()) {
    throw InternalError(
        problem(cat("read of [", begin, ", ", end, ") of ", spec.name,
                    " into a tensor that is not contiguous fp32 [", end - begin, "] on CPU")));
  }
  work_done(WorkUnit::bytes, (end - begin) * static_cast<int64_t>(sizeof(float)));
  const Found& at = found(spec);
  const Elements stored(at.file->bytes(*at.entry), at.entry->dtype);
  float* values = out.data_ptr<float>();
  if (at.tensor->transposed) {
    read_transposed(stored, *at.tensor, spec, begin, end, values);
    at.file->release(stored.bytes);
    return;
  }
  const int64_t rows = at.tensor->shape.empty() ? 1 : at.tensor->shape[0];
  const int64_t offset = rows == 0 ? 0 : at.tensor->first * (numel(at.tensor->shape) / rows);
  const std::vector<sharding::Run> runs = sharding::runs_of(spec, begin, end);
  for (const sharding::Run& run : runs) {
    stored.copy(offset + run.global_begin, run.count, values + (run.local_begin - begin));
  }
  if (runs.empty()) return;
  at.file->release(stored.range(offset + runs.front().global_begin,
                                offset + runs.back().global_begin + runs.back().count));
}

}  // namespace tptrain::checkpoint
