// Which linears of a decoder have adapters, and what their tensors are called: ours, by the
// decoder's linears, and PEFT's, by the modules of the model's files. A module of the files that
// holds several of our linears (gpt2's c_attn: q, k, v) has one A and, for each of ours, its rows
// of B. No arithmetic: that is tensor_parallel/low_rank_adapter.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"
#include "model/decoder_config.h"
#include "parameters/parameter.h"
#include "sharding/stored_model.h"
#include "tensor_parallel/low_rank_adapter.h"

namespace tptrain::model {

/// A linear of the layers as the model's files have it.
struct AdapterSite {
  std::string word;    // "q_proj", "c_attn": what adapter.targets names
  std::string module;  // "model.layers.0.self_attn.q_proj", "transformer.h.0.attn.c_attn"
  std::string name;    // ours, of its A: "model.layers.0.self_attn.q_proj" (".c_attn")
  struct Linear {
    std::string name;  // "model.layers.0.self_attn.q_proj"
    int64_t out = 0;
  };
  std::vector<Linear> linears;  // of ours, in the order of its outputs
  int64_t in = 0;
  int64_t out() const;
};

/// Those that adapter.targets names, layer by layer. Throws InternalError for a word that
/// check_adapter() refuses.
std::vector<AdapterSite> adapter_sites(const DecoderConfig& config,
                                       const config::AdapterConfig& adapter);
/// What all-linear stands for: "q_proj", "k_proj", ...
std::vector<std::string> adapter_words(const DecoderConfig& config);
/// Names of our tensors that adapter.modules_to_save trains whole.
std::set<std::string> tensors_saved_whole(const DecoderConfig& config,
                                          const config::AdapterConfig& adapter);
/// alpha / rank, or alpha / sqrt(rank).
double adapter_scale(const config::AdapterConfig& adapter);

/// Elements that train: of A, B and of what is saved whole.
int64_t adapter_parameters(const DecoderConfig& config, const config::AdapterConfig& adapter);
/// As flops_per_token() of decoder_config.h; a linear of the base has no gradient of its weight: 4
/// for each element, and 6 for those of adapters and of what is saved whole.
double flops_per_token(const DecoderConfig& config, const config::AdapterConfig& adapter,
                       int64_t seq_length);

/// How an adapter's tensors and those of modules_to_save lie in PEFT's adapter_model.safetensors:
/// "base_model.model." and the module, then ".lora_A.weight", ".lora_B.weight" or the tensor's own
/// ending. A table that embedding and head share stands there as the embedding's.
sharding::StoredModel stored_adapter(const DecoderConfig& config,
                                     const config::AdapterConfig& adapter);

/// Problems of the section with this model: words that name nothing, with the list of those that
/// do.
std::vector<Problem> check_adapter(const DecoderConfig& config,
                                   const config::AdapterConfig& adapter);

/// For the manifests of checkpoints. adapter_from_json throws CheckpointError, `name` is what the
/// text is of.
std::string to_json(const config::AdapterConfig& adapter);
config::AdapterConfig adapter_from_json(const std::string& text, const std::string& name);
/// The keys in which two adapters of such a model differ and their values: "rank 8 -> 16, targets
/// [q_proj] -> [q_proj, v_proj]"; "" where they are the same function of the same tensors. Dropout
/// is none of that.
std::string differences(const DecoderConfig& config, const config::AdapterConfig& before,
                        const config::AdapterConfig& now);

/// Takes the weights of the linears out of the layers' blocks (all but the first and the last)
/// where adapter.base_dtype packs them.
std::vector<parameters::Parameter*> take_packed(
    std::vector<parameters::ParameterBlock>& blocks,
    const std::optional<config::AdapterConfig>& adapter);

/// The adapters of a decoder's linears, for the layers that declare them.
class Adapters {
 public:
  Adapters() = default;  // none
  Adapters(const DecoderConfig& config, const config::AdapterConfig& adapter);

  /// The name of the A of a linear of ours; "": it has none.
  const std::string& of(const std::string& linear) const;
  const tensor_parallel::LowRank& low_rank() const { return low_rank_; }
  double dropout() const { return dropout_; }
  /// Leaves of what trains the adapters and the tensors saved whole. Throws InternalError where a
  /// part of a parameter would train: check_adapter() tells a user so.
  void train_alone(const std::vector<parameters::ParameterBlock>& blocks) const;

 private:
  tensor_parallel::LowRank low_rank_;
  double dropout_ = 0.0;
  std::map<std::string, std::string> a_of_;  // by linear
  std::set<std::string> saved_whole_;
};

}  // namespace tptrain::model
