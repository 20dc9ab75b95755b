// What loading a model of the size of Llama-3-8B costs a rank: as one of tp 4 it reads its slices,
// a part of each as ZeRO-3 over dp 2 does, and as the whole slice, and no other anonymous memory
// appears. The weights are sparse files: their size counts, not their content. Needs the shapes of
// that model (TPTRAIN_TEST_DATA).
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/huggingface_source.h"
#include "formats/safetensors_index.h"
#include "support/catch.h"
#include "support/huggingface_dirs.h"

namespace tptrain::testing {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20;

/// A line of /proc/self/status, in bytes: RssAnon, RssFile.
int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc/self/status has no " + key);
}

struct Shapes {
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
};

Shapes llama_shapes() {
  const char* data = std::getenv("TPTRAIN_TEST_DATA");
  if (data == nullptr) throw std::runtime_error("TPTRAIN_TEST_DATA is not set");
  std::ifstream in(fs::path(data) / "models/Meta-Llama-3-8B/shapes.json");
  const auto json = nlohmann::ordered_json::parse(in);
  Shapes shapes;
  for (const auto& [name, shape] : json.at("shapes").items()) {
    shapes.tensors.emplace_back(name, shape.get<std::vector<int64_t>>());
  }
  return shapes;
}

// bf16 files of about 5 GB that are all hole: header, then ftruncate.
sharding::StoredModel write_sparse_model(const fs::path& directory, const Shapes& shapes) {
  sharding::StoredModel model;
  std::map<std::string, std::string> weight_map;
  std::vector<formats::SafetensorsEntry> entries;
  int64_t bytes = 0;
  int file = 1;
  const auto flush = [&] {
    const std::string name = "model-0000" + std::to_string(file++) + "-of-00004.safetensors";
    for (const auto& entry : entries) weight_map[entry.name] = name;
    const std::string header = formats::make_safetensors_header(entries, {});
    const uint64_t length = header.size();
    std::ofstream(directory / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(&length), 8)
        .write(header.data(), static_cast<std::streamsize>(header.size()));
    fs::resize_file(directory / name, 8 + header.size() + static_cast<uintmax_t>(bytes));
    entries.clear();
    bytes = 0;
  };
  for (const auto& [name, shape] : shapes.tensors) {
    model.tensors.push_back({name, shape, name, shape});
    if (bytes + 2 * numel_of(shape) > 5'000'000'000) flush();
    entries.push_back({.name = name, .dtype = formats::Dtype::bf16, .shape = shape});
    bytes += 2 * numel_of(shape);
  }
  flush();
  std::ofstream(directory / "model.safetensors.index.json")
      << formats::safetensors_index_text(weight_map, 0, 0);
  return model;
}

// How a Llama is cut: embeddings, head and column-parallel matrices by rows, row-parallel ones by
// columns, norms not.
sharding::ShardSpec slice_for(const std::string& name, const std::vector<int64_t>& shape, int tp,
                              int rank) {
  if (shape.size() < 2)
    return sharding::whole_tensor(name,
                                  shape);  // == 1: gcc 13 sees faults in a copy of one element
  const bool by_columns =
      name.find("o_proj") != std::string::npos || name.find("down_proj") != std::string::npos;
  const int64_t dim = by_columns ? 1 : 0;
  const int64_t extent = shape[static_cast<size_t>(dim)];
  return sharding::slice_of(name, shape, dim, extent * rank / tp, extent * (rank + 1) / tp);
}

TEST_CASE("a rank's share of Llama-3-8B takes no anonymous memory beyond itself", "[data]") {
  at::set_num_threads(1);
  const TempDir dir;
  const Shapes shapes = llama_shapes();
  const sharding::StoredModel model = write_sparse_model(dir.path(), shapes);
  constexpr int kTp = 4;
  constexpr int kDp = 4;  // keeps the share at 2 GB as fp32, which test machines have

  const int64_t anonymous_before = status_bytes("RssAnon");
  const checkpoint::HuggingFaceSource source(dir.path(), model);
  CHECK(source.stored_dtype() == formats::Dtype::bf16);
  // Headers and names: a few hundred tensors.
  CHECK(status_bytes("RssAnon") - anonymous_before < 8 * kMiB);

  std::vector<at::Tensor> share;
  int64_t share_bytes = 0;
  int64_t peak_beyond = 0;
  int64_t peak_file = 0;
  int64_t largest_bytes = 0;
  for (const auto& [name, shape] : shapes.tensors) {
    const sharding::ShardSpec spec = slice_for(name, shape, kTp, 0);
    const int64_t begin = spec.local_numel() * 1 / kDp;
    const int64_t end = spec.local_numel() * 2 / kDp;
    share.push_back(at::empty({end - begin}, at::kFloat));
    source.read_slice(spec, begin, end, share.back());
    share_bytes += (end - begin) * 4;
    largest_bytes = std::max(largest_bytes, (end - begin) * 4);
    peak_beyond = std::max(peak_beyond, status_bytes("RssAnon") - anonymous_before - share_bytes);
    peak_file = std::max(peak_file, status_bytes("RssFile"));
  }
  WARN("share " << share_bytes / kMiB << " MiB, anonymous memory beyond it at most "
                << peak_beyond / kMiB << " MiB, mapped files at most " << peak_file / kMiB
                << " MiB, largest piece " << largest_bytes / kMiB << " MiB");
  CHECK(share_bytes > 1900 * kMiB);
  // The promise is one tensor beyond the share; what it takes is less than a piece of one.
  CHECK(peak_beyond < 32 * kMiB);
  // Pages are let go behind the reading: what is mapped at the end is libraries, headers and edges.
  CHECK(peak_file < 1024 * kMiB);
}

}  // namespace
}  // namespace tptrain::testing
