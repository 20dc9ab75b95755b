// The command line as values: one struct a verb. Reads no file and starts nothing; what a verb does
// is in commands/. The only place that knows CLI11 is options/.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tptrain::apps {

/// tptrain --config FILE [--set section.key=value ...]
struct TrainCommand {
  std::string config;
  std::vector<std::string> sets;
};

/// tptrain launch
struct LaunchCommand {
  std::optional<int64_t> ranks;  // nothing: those of the run file
  std::string config;
  std::vector<std::string> sets;
  int64_t max_restarts = 3;
  std::optional<int64_t> min_ranks;  // nothing: as many as ranks
  std::string hosts;                 // "": this one
  std::string agent;                 // "": ssh
  std::string mpirun = "mpirun";
};

/// tptrain plan: exactly one of config and model is given; sets belong to a config.
struct PlanCommand {
  std::string config;
  std::string model;  // directory with config.json
  std::optional<int64_t> tp_size;
  std::optional<int64_t> dp_size;
  std::string device;  // "": the run file's
  std::optional<double> gpu_memory_gib;
  std::vector<std::string> sets;
};

/// Which model a verb uses: exactly one of checkpoint, model and adapter is given.
struct ModelNames {
  std::string checkpoint;  // a checkpoint, or a run directory: its newest valid one; or:
  std::string model;       // a Hugging Face directory; or:
  std::string adapter;     // a PEFT directory
  std::string base;        // of an adapter or of its checkpoint; "": where those say
};

struct GenerateCommand {
  ModelNames from;
  std::string tokenizer;  // "": the model's own
  std::string prompt;     // not empty
  bool chat = false;      // the prompt is a user's turn
  std::string system;     // message before it; with chat
  int64_t max_new_tokens = 200;
  double temperature = 0.0;  // 0: always the likeliest token
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
  uint64_t seed = 0;
  std::string dtype = "auto";    // auto | fp32 | bf16: of the weights; auto: bf16 on GPUs
  std::string device = "auto";   // auto | cpu | cuda
  int64_t hang_timeout_s = 600;  // of several ranks; 0: never
};

/// tptrain evaluate
struct EvaluateCommand {
  ModelNames from;
  std::string tokenizer;
  std::vector<std::string> data;  // files, directories, globs; at least one
  std::string format;             // text | jsonl | indexed; "": by the file's name and contents
  std::string text_key = "text";
  std::map<std::string, std::string, std::less<>> columns;             // as data.columns
  std::map<std::string, std::vector<std::string>, std::less<>> roles;  // as data.roles
  std::string chat_template;           // a file; "": that of the tokenizer
  std::string train_on = "assistant";  // assistant | last | all: what is predicted of conversations
  std::string packing = "stream";
  bool document_mask = false;
  bool special_as_text = false;
  int64_t tp_size = 1;
  std::optional<int64_t> seq_length;
  int64_t micro_batch_size = 1;
  int64_t max_batches = 0;       // 0: all of the text
  std::string dtype = "auto";    // as in GenerateCommand
  std::string device = "auto";   // auto | cpu | cuda
  int64_t hang_timeout_s = 600;  // as in GenerateCommand
  bool json = false;
};

/// tptrain prepare
struct PrepareCommand {
  std::string config;
  std::vector<std::string> sets;
  int64_t show = 0;      // documents of each source
  std::string megatron;  // a directory; "": none
};

/// tptrain export
struct ExportCommand {
  ModelNames from;
  bool merge = false;  // an adapter into its base
  std::string out;
  std::string max_shard_size = "5GB";
  std::string dtype = "as-stored";  // as-stored | f32 | bf16 | f16
  std::string model_files;          // "": what the run kept
  bool overwrite = false;
};

/// PATH: a checkpoint, a directory of checkpoints, a run directory, a Hugging Face directory or a
/// .safetensors file.
struct InspectCommand {
  std::string path;
  bool json = false;
};
/// PATH: a checkpoint, a directory of checkpoints, or a run directory.
struct VerifyCommand {
  std::string path;
};

struct SchemaCommand {
  bool markdown = false;  // the reference of docs/configuration.md instead of the JSON Schema
};

/// tptrain report RUN_DIR ...: one HTML page.
struct ReportCommand {
  std::vector<std::string> runs;  // run directories, or folders of them; at least one
  std::string out = "report.html";
  std::string title;  // "": the names of the runs
};

/// tptrain watch RUN_DIR ...
struct WatchCommand {
  std::vector<std::string> runs;  // as in ReportCommand
  bool once = false;
  double every_s = 2;
};

/// tptrain fetch NAME
struct FetchCommand {
  std::string name;      // of a repository of the Hugging Face hub
  std::string revision;  // "": main
  std::vector<std::string> include;
  std::string out;  // "": named after the repository
  bool overwrite = false;
};

/// tptrain doctor [RUN_DIR]
struct DoctorCommand {
  std::string run_dir;  // "": no directory is tried
};

/// tptrain tokenize: JSON lines from standard input to standard output.
struct TokenizeCommand {
  std::string tokenizer;  // directory, file or "bytes"
  bool no_special = false;
  bool special_as_text = false;
  bool decode = false;  // at most one of decode and chat
  bool chat = false;
  bool generation_prompt = false;  // with chat
  std::string chat_variables;      // with chat: a JSON object
  int64_t threads = 1;
};

/// --help and --version: nothing to do but to print.
struct PrintCommand {
  std::string text;
};

using Command = std::variant<TrainCommand, LaunchCommand, PlanCommand, GenerateCommand,
                             EvaluateCommand, PrepareCommand, ExportCommand, InspectCommand,
                             VerifyCommand, ReportCommand, WatchCommand, DoctorCommand,
                             FetchCommand, TokenizeCommand, SchemaCommand, PrintCommand>;

/// Throws ConfigError (exit code 2) for an unknown verb or option (naming the nearest), for what is
/// missing, and for values of another type or out of bounds.
Command parse_cli(int argc, const char* const* argv);

}  // namespace tptrain::apps
