#include "support/golden.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "base/files.h"
#include "model/families/family.h"

namespace tptrain::testing {

namespace fs = std::filesystem;

namespace {

model::DecoderConfig config_of(const fs::path& directory) {
  const fs::path file = directory / "config.json";
  return model::decoder_config_from_json(read_file(file, 1 << 20), file.string());
}

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

GoldenNumbers::GoldenNumbers(const fs::path& directory)
    : name_(directory.filename().string()), file_(directory / "golden.safetensors") {}

GoldenModel::GoldenModel(const fs::path& directory)
    : GoldenNumbers(directory),
      directory_(directory),
      config_(config_of(directory)),
      stored_(model::stored_model(config_)) {}

const formats::SafetensorsEntry& GoldenNumbers::entry(const std::string& tensor) const {
  const formats::SafetensorsEntry* found = file_.find(tensor);
  if (found == nullptr) throw std::runtime_error(name_ + " has no golden tensor " + tensor);
  return *found;
}

const std::vector<int64_t>& GoldenNumbers::shape(const std::string& tensor) const {
  return entry(tensor).shape;
}

std::vector<float> GoldenNumbers::floats(const std::string& tensor) const {
  const auto& found = entry(tensor);
  if (found.dtype != formats::Dtype::f32) throw std::runtime_error(tensor + " is not fp32");
  std::vector<float> values(static_cast<size_t>(product(found.shape)));
  std::memcpy(values.data(), file_.bytes(found).data(), values.size() * sizeof(float));
  return values;
}

std::vector<int64_t> GoldenNumbers::integers(const std::string& tensor) const {
  const auto& found = entry(tensor);
  if (found.dtype != formats::Dtype::i64) throw std::runtime_error(tensor + " is not int64");
  std::vector<int64_t> values(static_cast<size_t>(product(found.shape)));
  std::memcpy(values.data(), file_.bytes(found).data(), values.size() * sizeof(int64_t));
  return values;
}

std::vector<fs::path> golden_directories(const std::string& defined) {
  fs::path root = defined;
  if (defined.empty()) {
    const char* data = std::getenv("TPTRAIN_TEST_DATA");
    if (data == nullptr) throw std::runtime_error("TPTRAIN_TEST_DATA is not set");
    root = fs::path(data) / "golden";
  }
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (fs::exists(entry.path() / "golden.safetensors")) found.push_back(entry.path());
  }
  if (found.empty()) throw std::runtime_error("no golden model in " + root.string());
  std::sort(found.begin(), found.end());
  return found;
}

std::map<std::string, std::vector<float>> as_stored(
    const sharding::StoredModel& stored,
    const std::map<std::string, std::vector<float>>& canonical) {
  std::map<std::string, std::vector<float>> result;
  for (const sharding::StoredTensor& tensor : stored.tensors) {
    std::vector<float>& out = result[tensor.stored_name];
    out.resize(static_cast<size_t>(product(tensor.stored_shape)));
    const std::vector<float>& in = canonical.at(tensor.name);
    const int64_t rows = tensor.shape[0];
    const int64_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
    const int64_t stored_columns = tensor.stored_shape.size() == 2 ? tensor.stored_shape[1] : 1;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t at = tensor.transposed ? column * stored_columns + tensor.first + row
                                             : (tensor.first + row) * stored_columns + column;
        out[static_cast<size_t>(at)] = in[static_cast<size_t>(row * columns + column)];
      }
    }
  }
  return result;
}

}  // namespace tptrain::testing
