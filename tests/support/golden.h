// Models with numbers that transformers computed (scripts/golden/make_models.py says what each
// golden.safetensors holds). Reads files; compares nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "model/decoder_config.h"
#include "sharding/stored_model.h"

namespace tptrain::testing {

/// The golden.safetensors of a directory.
class GoldenNumbers {
 public:
  explicit GoldenNumbers(const std::filesystem::path& directory);

  const std::vector<int64_t>& shape(const std::string& tensor) const;
  std::vector<float> floats(const std::string& tensor) const;
  std::vector<int64_t> integers(const std::string& tensor) const;

 private:
  const formats::SafetensorsEntry& entry(const std::string& tensor) const;

  std::string name_;
  formats::SafetensorsFile file_;
};

class GoldenModel : public GoldenNumbers {
 public:
  explicit GoldenModel(const std::filesystem::path& directory);

  std::string name() const { return directory_.filename().string(); }
  const std::filesystem::path& directory() const { return directory_; }
  const model::DecoderConfig& config() const { return config_; }
  const sharding::StoredModel& stored() const { return stored_; }

 private:
  std::filesystem::path directory_;
  model::DecoderConfig config_;
  sharding::StoredModel stored_;
};

/// The directories below TPTRAIN_GOLDEN_MODELS (a definition of the test: the repository's own), or
/// below golden/ of TPTRAIN_TEST_DATA where the definition is empty. Never none: throws instead.
std::vector<std::filesystem::path> golden_directories(const std::string& defined);

/// Canonical tensors -> the stored ones they are parts of, by stored name.
std::map<std::string, std::vector<float>> as_stored(
    const sharding::StoredModel& stored,
    const std::map<std::string, std::vector<float>>& canonical);

}  // namespace tptrain::testing
