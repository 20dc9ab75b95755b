// Fuzzes the reader of config.json: whatever the bytes, they are refused with a ConfigError or
// DataError, or give a model that is written and read back as the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "model/decoder_config.h"
#include "model/families/family.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const auto config = tptrain::model::decoder_config_from_json(text, "fuzz");
    require(tptrain::model::decoder_config_from_json(tptrain::model::to_json(config), "again") ==
            config);
    // As many tensors as layers: beyond that they say nothing new.
    if (config.num_hidden_layers <= 8) {
      require(!tptrain::model::stored_model(config).tensors.empty());
    }
  } catch (const tptrain::ConfigError&) {
    // A refusal is one of the right answers.
  } catch (const tptrain::DataError&) {
  }
  return 0;
}
