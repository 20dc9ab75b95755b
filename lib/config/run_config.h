// The run file as plain structs: one section each. What each key means, its type, default and
// bounds stand once, in keys_*.cpp (the one list of keys). Other folders receive their own section
// only; train and apps see the whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain::config {

/// The words that a run file has for an enum, in its order. The key of a member of that type is
/// bound to them (key_binding.h), so that a word is spelt here alone.
template <typename Enum>
struct Words;
template <typename Enum>
const char* word(Enum value) {
  return Words<Enum>::list[static_cast<size_t>(value)];
}
/// What a word of the list means; nothing where it is none of them.
template <typename Enum>
std::optional<Enum> meaning(std::string_view word) {
  for (size_t i = 0; i < Words<Enum>::list.size(); ++i)
    if (word == Words<Enum>::list[i]) return static_cast<Enum>(i);
  return std::nullopt;
}

enum class Init { pretrained, random };
template <>
struct Words<Init> {
  static constexpr std::array list = {"pretrained", "random"};
};
enum class Recompute { none, selective, full };
template <>
struct Words<Recompute> {
  static constexpr std::array list = {"none", "selective", "full"};
};
enum class ReduceGradients { per_step, per_micro_batch };
template <>
struct Words<ReduceGradients> {
  static constexpr std::array list = {"per_step", "per_micro_batch"};
};
enum class Dtype { fp32, bf16 };
template <>
struct Words<Dtype> {
  static constexpr std::array list = {"fp32", "bf16"};
};
enum class Overlap { automatic, on, off };
template <>
struct Words<Overlap> {
  static constexpr std::array list = {"auto", "on", "off"};
};
enum class Device { automatic, cuda, cpu };
template <>
struct Words<Device> {
  static constexpr std::array list = {"auto", "cuda", "cpu"};
};
enum class Nonfinite { stop, skip };
template <>
struct Words<Nonfinite> {
  static constexpr std::array list = {"stop", "skip"};
};
enum class GuardAction { none, stop, skip, rollback };
template <>
struct Words<GuardAction> {
  static constexpr std::array list = {"none", "stop", "skip", "rollback"};
};
enum class CudaGraphs { automatic, on, off };
template <>
struct Words<CudaGraphs> {
  static constexpr std::array list = {"auto", "on", "off"};
};
enum class Fp8 { off, on };
template <>
struct Words<Fp8> {
  static constexpr std::array list = {"off", "on"};
};
enum class Packing { stream, best_fit, none };
template <>
struct Words<Packing> {
  static constexpr std::array list = {"stream", "best_fit", "none"};
};
enum class TrainOn { assistant, last, all };
template <>
struct Words<TrainOn> {
  static constexpr std::array list = {"assistant", "last", "all"};
};
enum class OnFailure { stop, go_on };
template <>
struct Words<OnFailure> {
  static constexpr std::array list = {"stop", "go_on"};
};
enum class KeepBest { none, eval_loss };
template <>
struct Words<KeepBest> {
  static constexpr std::array list = {"none", "eval_loss"};
};
enum class Schedule { constant, linear, cosine, wsd };
template <>
struct Words<Schedule> {
  static constexpr std::array list = {"constant", "linear", "cosine", "wsd"};
};

enum class OptimizerType { adamw, lion, muon };
template <>
struct Words<OptimizerType> {
  static constexpr std::array list = {"adamw", "lion", "muon"};
};
enum class DataFormat { text, jsonl, parquet, indexed };
template <>
struct Words<DataFormat> {
  static constexpr std::array list = {"text", "jsonl", "parquet", "indexed"};
};
/// What checkpoint.resume says; `path` has no word there, being one.
enum class Resume { automatic, never, path };
template <>
struct Words<Resume> {
  static constexpr std::array list = {"auto", "never", "path"};
};

enum class AdapterType { lora };
template <>
struct Words<AdapterType> {
  static constexpr std::array list = {"lora"};
};

/// Model shape by Hugging Face keys; optional ones default as transformers does.
struct ArchitectureConfig {
  std::string model_type = "llama";  // llama | qwen2 | qwen3 | mistral | gpt2
  int64_t vocab_size = 0;            // 0: the tokenizer's size
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;      // 0: num_attention_heads
  int64_t head_dim = 0;                 // 0: hidden_size / num_attention_heads
  int64_t max_position_embeddings = 0;  // 0: no bound; required where positions are learned
  double rms_norm_eps = 1e-6;           // of the layer norms as well
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;
  std::optional<bool> attention_bias;  // of q, k, v (and o); default: what the family has
  double initializer_range = 0.02;

  bool operator==(const ArchitectureConfig&) const = default;
};

struct ModelConfig {
  std::string path;  // directory with config.json; or:
  std::optional<ArchitectureConfig> architecture;
  std::optional<Init> init;              // where not said: pretrained with path
  std::vector<std::string> freeze = {};  // globs over global tensor names: what does not train
  std::string adapter = {};              // directory of a PEFT adapter to go on from; "": none

  bool operator==(const ModelConfig&) const = default;
};

/// Stands for every linear of the layers in AdapterConfig::targets.
inline constexpr const char* kAllLinear = "all-linear";

/// Low-rank matrices beside linears of a model that does not train itself.
enum class BaseDtype { automatic, bf16, nf4 };
template <>
struct Words<BaseDtype> {
  static constexpr std::array list = {"auto", "bf16", "nf4"};
};
struct AdapterConfig {
  AdapterType type = AdapterType::lora;
  int64_t rank = 16;
  double alpha = 32.0;                              // their product is scaled by alpha / rank
  std::vector<std::string> targets = {kAllLinear};  // names of linears in the model's files
  double dropout = 0.0;                             // of the adapters' input
  bool rslora = false;                              // scaled by alpha / sqrt(rank)
  std::vector<std::string> modules_to_save = {};    // trained whole, as lm_head
  BaseDtype base_dtype = BaseDtype::automatic;      // of the base's linears; automatic: train.dtype

  bool operator==(const AdapterConfig&) const = default;
};

struct ParallelConfig {
  int64_t tp_size = 1;
  int64_t dp_size = 0;  // 0: world size / tp_size
  int64_t zero_stage = 1;
  bool sequence_parallel = true;  // no effect with tp_size 1
  Recompute recompute = Recompute::none;
  // Not said: per_step for ZeRO 0 and 1, per_micro_batch for 2 and 3 (which know no other).
  std::optional<ReduceGradients> reduce_gradients;
  Dtype reduce_dtype = Dtype::fp32;         // of gradients on their way over dp
  Overlap tp_overlap = Overlap::automatic;  // pieces pushed between GPUs beside the products
  Overlap dp_overlap = Overlap::automatic;  // gradients and parameters by copy engines

  bool operator==(const ParallelConfig&) const = default;
};

/// What columns of rows are called in the files: our name, one of kColumnNames -> theirs.
using Columns = std::map<std::string, std::string, std::less<>>;
inline constexpr std::array kColumnNames = {
    "text",   "input_ids", "labels", "attention_mask", "messages",    "conversations",
    "role",   "content",   "system", "tools",          "instruction", "input",
    "output", "history",   "prompt", "completion"};

/// Who speaks in conversations, one of kRoleNames -> the words of the files for it.
using Roles = std::map<std::string, std::vector<std::string>, std::less<>>;
inline constexpr std::array kRoleNames = {"system", "developer", "user", "assistant", "tool"};

struct DataSource {
  std::string path;       // glob: *, ?, [..], **
  std::string name = {};  // in metrics and messages; "": the path
  std::optional<double> weight =
      {};  // of the sequences of a mixture; all entries have one, or none
  std::optional<DataFormat> format = {};  // as data.format, which it takes the place of
  std::string subset = {};                // of the rows: "5%" | "1000" (config/share.h); "": all
  int64_t repeat = 1;                     // how often an epoch visits it
  Columns columns = {};                   // in place of data.columns and data.text_key
  Roles roles = {};                       // in place of data.roles
  std::string set = {};                   // of data.eval: the name of the set that it is in

  bool operator==(const DataSource&) const = default;
};

struct DataConfig {
  std::vector<DataSource> train;
  std::vector<DataSource> eval;
  std::string eval_share;                 // of the documents of train, "1%"; "": none
  std::string tokenizer;                  // "": that of model.path, else bytes
  std::optional<DataFormat> format;       // nothing: by each file's name and contents
  std::string text_key = "text";          // of rows: the key of their text
  Columns columns = {};                   // of rows: what else is called otherwise in the files
  Roles roles = {};                       // of conversations: who speaks, by the files' words
  double max_bad_fraction = 0.0;          // of rows: how many may be malformed, and are left out
  std::string chat_template;              // a file; "": that of the tokenizer
  TrainOn train_on = TrainOn::assistant;  // of conversations and completions
  bool train_on_end = true;               // and the token that closes an answer
  std::string cache_dir;                  // of token files; "": run_dir/data
  bool trust_times = false;               // a file of the same size and time holds the same
  Packing packing = Packing::stream;
  bool document_mask = false;  // documents packed into one sequence do not see each other
  bool special_as_text = false;
  bool shuffle = true;

  bool evaluates() const { return !eval.empty() || !eval_share.empty(); }
  bool operator==(const DataConfig&) const = default;
};

struct GuardConfig {
  GuardAction action = GuardAction::none;
  int64_t window = 100;     // steps
  double threshold = 10.0;  // robust standard deviations above the median
  int64_t limit = 10;       // outliers that a run survives

  bool operator==(const GuardConfig&) const = default;
};

struct TrainConfig {
  int64_t seq_length = 512;
  int64_t micro_batch_size = 1;   // sequences per dp rank
  int64_t global_batch_size = 0;  // sequences; or:
  int64_t grad_accum_steps = 0;   // 0 and 0: one micro-batch per dp rank
  int64_t max_steps = 0;          // or:
  double epochs = 0;              // of data.train
  std::string max_time;           // config/duration.h; "": no limit
  uint64_t seed = 42;
  Device device = Device::automatic;
  int64_t cpu_threads = 0;             // per rank; 0: cores of the host / ranks on it, at least 1
  Dtype dtype = Dtype::fp32;           // of weights and activations in the layers
  Dtype gradient_dtype = Dtype::fp32;  // of the layers' matrices
  Fp8 fp8 = Fp8::off;                  // the layers' linears
  int64_t fp8_bf16_first_layers = 0;   // that stay bf16
  int64_t fp8_bf16_last_layers = 0;
  Fp8 fp8_all_gather = Fp8::off;  // scales of whole tensors, and what is gathered of them in bytes
  double attention_dropout = 0.0;
  double residual_dropout = 0.0;          // of each sublayer's output and of the embedding
  double z_loss = 0.0;                    // coefficient of the mean of logsumexp(logits)^2
  Nonfinite nonfinite = Nonfinite::stop;  // a step whose loss or gradient norm is not finite
  GuardConfig guard = {};                 // one whose loss or gradient norm is an outlier
  bool deterministic = false;             // on GPUs; the CPU always is
  CudaGraphs cuda_graphs = CudaGraphs::automatic;
  int64_t hang_timeout_s = 600;  // 0: a run may hang for ever

  bool operator==(const TrainConfig&) const = default;
};

/// Parameters whose global name matches get other settings.
struct ParameterGroup {
  std::string match;                   // glob over global tensor names: "*.bias"
  std::optional<double> weight_decay;  // nothing: the default rule
  double learning_rate_scale = 1.0;

  bool operator==(const ParameterGroup&) const = default;
};

struct MuonConfig {
  double momentum = 0.95;
  bool nesterov = true;
  int64_t steps = 5;  // of Newton-Schulz

  bool operator==(const MuonConfig&) const = default;
};

struct OptimizerConfig {
  OptimizerType type = OptimizerType::adamw;
  double learning_rate = 1e-5;
  std::vector<double> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.01;
  double max_grad_norm = 1.0;               // 0: no clipping
  std::vector<ParameterGroup> groups = {};  // the first that matches counts; none: the default rule
                                            // (decay of matrices, not of norms and biases)
  Dtype moments_dtype = Dtype::fp32;
  Dtype master_dtype = Dtype::fp32;  // bf16: no fp32 master weights, the update of the bf16
                                     // weights is rounded stochastically
  MuonConfig muon = {};

  bool operator==(const OptimizerConfig&) const = default;
};

struct SchedulerConfig {
  Schedule type = Schedule::constant;
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;  // of wsd: the last steps, which fall to min_lr; 0: a tenth of max_steps
  double min_lr = 0.0;

  bool operator==(const SchedulerConfig&) const = default;
};

struct CheckpointConfig {
  int64_t save_steps = 0;       // 0: only at the end
  int64_t keep = 2;             // newest committed ones; 0: all
  std::string resume = "auto";  // auto | never | PATH of a checkpoint: of the first start
  OnFailure on_failure = OnFailure::go_on;      // what a save that failed twice means
  bool async = true;                            // from a copy in host memory, beside the steps
  std::vector<std::string> allow_changes = {};  // of what decides which sequences come next
  int64_t save_epochs = 0;                      // 0: not by epochs
  int64_t keep_every = 0;                       // those of every so many steps stay; 0: none
  KeepBest keep_best = KeepBest::none;          // stays as well
  std::string init_from;                        // whose weights alone a run begins with; "": none's

  Resume resumes() const {
    const std::optional<Resume> said = meaning<Resume>(resume);
    return said && said != Resume::path ? *said : Resume::path;
  }
  bool operator==(const CheckpointConfig&) const = default;
};

struct EvalConfig {
  int64_t every_steps = 0;   // 0: only at the end (where data.eval is given)
  int64_t max_batches = 20;  // global batches; 0: all of data.eval
  int64_t patience = 0;      // evaluations without a new best; 0: a run does not end by them
  int64_t every_epochs = 0;  // 0: not by epochs

  bool operator==(const EvalConfig&) const = default;
};

struct LoggingConfig {
  int64_t every_steps = 1;
  int64_t audit_steps = 100;  // 0: never
  bool tensorboard = true;
  bool fp8_counts = false;

  bool operator==(const LoggingConfig&) const = default;
};

struct RunConfig {
  std::string run_dir;
  ModelConfig model;
  std::optional<AdapterConfig> adapter;  // none: what model.freeze leaves trains
  ParallelConfig parallel;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  SchedulerConfig scheduler;
  CheckpointConfig checkpoint;
  EvalConfig eval;
  LoggingConfig logging;

  bool operator==(const RunConfig&) const = default;
};

}  // namespace tptrain::config
