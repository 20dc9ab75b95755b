// adapter_config.json, as PEFT writes and reads it: a LoRA adapter in PEFT's words. Knows no model:
// what the words mean for one is adapter_form.h's. Read from PEFT 0.21's own files and source; what
// this program does not train is refused by name, whatever key says so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::adapters {

constexpr const char* kPeftConfigName = "adapter_config.json";

struct PeftConfig {
  int64_t rank = 8;  // the values of keys that are not there, as in PEFT
  double alpha = 8;
  double dropout = 0.0;
  bool rslora = false;  // the scale is alpha / sqrt(rank), not alpha / rank
  /// Modules by their path or its end ("q_proj"); empty where target_pattern says it.
  std::vector<std::string> targets = {};
  /// "all-linear", or a regular expression that fits whole paths.
  std::string target_pattern = {};
  std::vector<std::string> modules_to_save = {};
  /// ensure_weight_tying: a table that the embedding and the head share stays one where it trains.
  bool keeps_tie = false;
  std::string base_model = {};  // base_model_name_or_path: a directory, or a name on the hub

  /// What x A^T B^T is multiplied with.
  double scale() const;
};

/// Throws DataError naming `where`: no JSON object, and in one message every key that is not what
/// it must be or asks for what is not built (another type than LoRA, use_dora, bias, ..., and a key
/// that is unknown and not empty).
PeftConfig parse_peft_config(std::string_view text, const std::string& where);

/// With every key that PEFT writes. `stored_transposed`: the linears of the base lie as [in, out]
/// (PEFT's fan_in_fan_out).
std::string peft_config_text(const PeftConfig& config, bool stored_transposed);

}  // namespace tptrain::adapters
