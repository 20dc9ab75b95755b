// A PEFT directory, in and out: adapter_config.json and adapter_model.safetensors, as
// PeftModel.from_pretrained and save_pretrained have them. Which tensors an adapter of this model
// has is model/adapter.h's to say; the bytes are read and written as those of whole models are
// (checkpoint/huggingface_source.h, huggingface_writer.h).
//
// A table that the embedding and the head share is one parameter here, and stays one where it
// trains: PEFT's ensure_weight_tying, with which its files hold the table twice. Without it PEFT
// trains two tables: such an adapter is refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "adapters/peft_config.h"
#include "config/run_config.h"
#include "formats/dtype.h"
#include "model/decoder_config.h"
#include "sharding/state_dict.h"

namespace tptrain::adapters {

constexpr const char* kPeftWeightsName = "adapter_model.safetensors";

/// The directory's adapter_config.json. Throws DataError: it is missing, or as parse_peft_config.
PeftConfig peft_config_of(const std::filesystem::path& directory);

/// The same in the words of the run file's adapter section, for this model. Throws DataError as
/// well for targets and modules_to_save that this model does not have, all named.
config::AdapterConfig read_peft_config(const std::filesystem::path& directory,
                                       const model::DecoderConfig& decoder);

/// The directory's tensors under canonical names. Throws DataError: the file is missing or broken;
/// and, in one message, all tensors that are missing, of another shape (another rank), of another
/// type, or not of such an adapter; a tied table that is stored twice with different values.
std::unique_ptr<sharding::TensorSource> open_peft(const std::filesystem::path& directory,
                                                  const model::DecoderConfig& decoder,
                                                  const config::AdapterConfig& adapter);

struct PeftExport {
  std::filesystem::path directory;  // made where it is missing
  formats::Dtype dtype = formats::Dtype::f32;
  std::string base_model = {};  // base_model_name_or_path
  bool replace_earlier = false;
  std::function<void(const std::string& name, int64_t bytes)> on_file = {};
};

struct ExportedAdapter {
  int64_t total_bytes = 0;
  int64_t parameters = 0;
};

/// Writes the adapter that `source` holds under canonical names. Whole or not at all: the weights
/// come first, adapter_config.json last. Throws as write_huggingface_model.
ExportedAdapter write_peft(const sharding::TensorSource& source,
                           const model::DecoderConfig& decoder,
                           const config::AdapterConfig& adapter, const PeftExport& order);

}  // namespace tptrain::adapters
