#include <algorithm>
#include <array>

#include "config/run_config.h"
#include "options/model_options.h"
#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

namespace {

void check_values(VerbParser& parser, const EvaluateCommand& command) {
  const auto one_of = [&]<size_t n>(const std::string& name, const std::string& value,
                                    const std::array<const char*, n>& known) {
    parser.require(std::find(known.begin(), known.end(), value) != known.end(),
                   cat(name, " is ", value),
                   cat("be one of ", join(std::vector<std::string>(known.begin(), known.end()))));
  };
  if (!command.format.empty())
    one_of("--format", command.format, config::Words<config::DataFormat>::list);
  one_of("--train-on", command.train_on, config::Words<config::TrainOn>::list);
  one_of("--packing", command.packing, config::Words<config::Packing>::list);
  if (command.dtype != "auto") one_of("--dtype", command.dtype, config::Words<config::Dtype>::list);
  one_of("--device", command.device, std::array{"auto", "cpu", "cuda"});
  const auto at_least = [&](const std::string& name, int64_t value, int64_t least) {
    parser.require(value >= least, cat(name, " is ", value), cat("be at least ", least));
  };
  at_least("--seq-length", command.seq_length.value_or(1), 1);
  at_least("--micro-batch-size", command.micro_batch_size, 1);
  at_least("--max-batches", command.max_batches, 0);
  at_least("--tp-size", command.tp_size, 1);
}

struct NamedValue {
  std::string name;
  std::string value;
};

/// Those of `given` that are NAME=VALUE with a known name; `option` is what they are given by, and
/// `value` what messages call the value.
template <size_t n>
std::vector<NamedValue> named_values(VerbParser& parser, const std::string& option,
                                     const std::string& value,
                                     const std::array<const char*, n>& known,
                                     const std::vector<std::string>& given) {
  std::vector<NamedValue> values;
  for (const std::string& one : given) {
    const size_t equals = one.find('=');
    const std::string name = one.substr(0, equals);
    const bool has_value = equals != std::string::npos && equals + 1 < one.size();
    parser.require(has_value && std::find(known.begin(), known.end(), name) != known.end(),
                   cat(option, " is ", one),
                   cat("be NAME=", value, " with a name of ",
                       join(std::vector<std::string>(known.begin(), known.end()))));
    if (has_value) values.push_back({name, one.substr(equals + 1)});
  }
  return values;
}

}  // namespace

Command parse_evaluate(const std::vector<std::string>& arguments) {
  VerbParser parser("evaluate",
                    "Measures a model on text: the mean loss of all tokens (each is predicted "
                    "once, the first of a document is not) and its perplexity. The same on every "
                    "number of ranks, which are tp x dp.",
                    "  tptrain evaluate --checkpoint runs/a --data test.txt\n"
                    "  mpirun -n 4 tptrain evaluate --model Qwen2.5-0.5B --data 'test/*.jsonl' "
                    "--tp-size 2 --seq-length 2048 --json");
  EvaluateCommand command;
  model_options(parser, command.from);
  parser.option("--tokenizer", command.tokenizer, "PATH", "A tokenizer instead of the model's own");
  parser.values("--data", command.data, "PATH ...", "Files, directories or globs with the text");
  parser.option("--format", command.format, "text|jsonl|parquet|indexed",
                "What the files are (by name and contents)");
  std::vector<std::string> columns;
  parser.list("--column", columns, "NAME=KEY",
              "A column of rows that is called otherwise, as in data.columns: messages=dialog; may "
              "be repeated");
  std::vector<std::string> roles;
  parser.list("--role", roles, "NAME=WORD",
              "Who a word of conversations means, as in data.roles: assistant=bot; may be "
              "repeated");
  parser.option("--text-key", command.text_key, "KEY", "Key of a row that holds its text (text)");
  parser.option("--chat-template", command.chat_template, "FILE",
                "Template that renders conversations, instead of the tokenizer's");
  parser.option("--train-on", command.train_on, "assistant|last|all",
                "What is predicted of conversations, as data.train_on (assistant)");
  parser.option("--packing", command.packing, "stream|best_fit|none",
                "Windows of all documents end to end (stream), of whole documents, as many as fit "
                "(best_fit), or each document by itself");
  parser.flag("--document-mask", command.document_mask,
              "Documents in one window do not see each other, as data.document_mask");
  parser.flag("--special-as-text", command.special_as_text,
              "Special tokens' strings in the text are ordinary text");
  parser.option("--seq-length", command.seq_length, "N",
                "Tokens that a window holds (1024, or as many as the model takes)");
  parser.option("--micro-batch-size", command.micro_batch_size, "N",
                "Windows that a rank computes at once (1)");
  parser.option("--max-batches", command.max_batches, "N",
                "Stop after N x micro-batch-size windows (0: all of the text)");
  parser.option("--tp-size", command.tp_size, "N",
                "Ranks that share one copy of the model (1); copies work side by side");
  parser.option("--dtype", command.dtype, "fp32|bf16",
                "Weights and activations (bf16 on GPUs, fp32 on CPUs)");
  parser.option("--device", command.device, "auto|cpu|cuda", "Where to compute (auto)");
  hang_timeout_option(parser, command.hang_timeout_s);
  parser.flag("--json", command.json, "Print one JSON object instead of text");
  if (auto help = parser.parse(arguments)) return *help;
  require_one_model(parser, command.from);
  parser.require(!command.data.empty(), "--data is missing",
                 "name at least one file, directory or glob");
  for (auto& [name, key] : named_values(parser, "--column", "KEY", config::kColumnNames, columns))
    command.columns[name] = std::move(key);
  for (auto& [name, word] : named_values(parser, "--role", "WORD", config::kRoleNames, roles))
    command.roles[name].push_back(std::move(word));
  check_values(parser, command);
  require_hang_timeout(parser, command.hang_timeout_s);
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
