// tptrain plan: the forecast of a run file or of a model's config.json. No MPI, no GPU, no
// parameters.
#include "planner/plan.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "comm/control.h"
#include "commands/commands.h"
#include "config/parse.h"
#include "inference/model_directory.h"
#include "model/decoder_config.h"
#include "optim/parameter_groups.h"
#include "tokenizer/tokenizer.h"
#include "train/resolve.h"
#include "train/run_options.h"

namespace tptrain::apps {
namespace {

struct Subject {
  inference::DecidedModel model;
  planner::Layout layout;
  config::OptimizerConfig optimizer;
  bool dp_size_is_open = false;  // the run file leaves it to the number of ranks
};

// The sizes of the command line as what they are: values that take the place of the run file's.
std::vector<std::string> overrides_of(const PlanCommand& command) {
  std::vector<std::string> overrides = command.sets;
  if (command.tp_size) overrides.push_back(cat("parallel.tp_size=", *command.tp_size));
  if (command.dp_size) overrides.push_back(cat("parallel.dp_size=", *command.dp_size));
  return overrides;
}

// How many ranks the run file asks for; as many as one copy of the model takes where it leaves that
// open.
int ranks_of(const config::ParallelConfig& parallel) {
  const int64_t dp_size = std::max<int64_t>(1, parallel.dp_size);
  constexpr int64_t kMost = std::numeric_limits<int>::max();
  if (parallel.tp_size <= kMost / dp_size) return static_cast<int>(parallel.tp_size * dp_size);
  throw ConfigError(problem(cat("tp_size ", parallel.tp_size, " x dp_size ", dp_size,
                                " is more than MPI can count"))
                        .must(cat("be at most ", kMost, " ranks")));
}

// By the checks of the training itself: what it refuses is not planned.
Subject from_run_file(const PlanCommand& command) {
  const std::string text = read_file(command.config, kTextLimitBytes, FailAs::config_error);
  const config::Parsed parsed =
      config::parse_run_config(text, command.config, overrides_of(command));
  const config::RunConfig& run = parsed.config;
  train::check_model_directory(parsed);
  const auto tokenizer = tokenizer::make_tokenizer(train::tokenizer_of(run));
  comm::SingleRank alone;
  inference::DecidedModel model =
      inference::decide_model(alone, run.model, tokenizer->vocab_size());
  const train::ResolvedConfig resolved =
      train::resolve(parsed, model.decoder, tokenizer->vocab_size(), ranks_of(run.parallel));
  planner::Layout layout = train::planned_layout(resolved);
  // `auto` asks for the device of this host, which may be a login node.
  layout.device =
      run.train.device == config::Device::cuda ? planner::Device::cuda : planner::Device::cpu;
  return {.model = std::move(model),
          .layout = layout,
          .optimizer = run.optimizer,
          .dp_size_is_open = run.parallel.dp_size == 0};
}

Subject from_model_directory(const PlanCommand& command) {
  const std::filesystem::path path = std::filesystem::path(command.model) / "config.json";
  const std::string text = read_file(path, kTextLimitBytes, FailAs::config_error);
  return {
      .model = inference::decide_head(command.model,
                                      model::decoder_config_from_json(text, path.string())),
      .layout = {.tp_size = command.tp_size.value_or(1), .dp_size = command.dp_size.value_or(1)},
      .optimizer = {},
      .dp_size_is_open = !command.dp_size};
}

void check_groups(const config::OptimizerConfig& optimizer, const planner::Plan& plan) {
  std::vector<std::string> names;
  for (const planner::TensorPlan& tensor : plan.tensors) names.push_back(tensor.name);
  const std::vector<Problem> problems = optim::check_groups(optimizer, names);
  if (!problems.empty()) throw ConfigError(problems);
}

// Where activations are made again in backward although there is room to keep them.
std::string less_recompute_text(const Subject& subject, int64_t usable_bytes) {
  using model::Recompute;
  const std::optional<Recompute> least =
      planner::least_recompute(subject.model.decoder, subject.layout, usable_bytes);
  if (!least || *least == subject.layout.training.recompute) return "";
  return cat("parallel.recompute: ", *least == Recompute::none ? "none" : "selective",
             " fits as well at train.micro_batch_size: ", subject.layout.micro_batch_size,
             ", and is faster: less is made again in backward.\n");
}

// Which micro-batch a GPU takes.
std::string fitting_text(const Subject& subject, double gpu_memory_gib) {
  const auto bytes = static_cast<int64_t>(gpu_memory_gib * (int64_t{1} << 30));
  const int64_t usable = bytes - planner::kLibraryBytes;
  const int64_t size = planner::largest_micro_batch(subject.model.decoder, subject.layout, usable);
  const std::string beside = cat(" (", human_bytes(planner::kLibraryBytes), " left to libraries)");
  if (size == 0) {
    return cat("\nNot even train.micro_batch_size: 1 fits into ", human_bytes(bytes), beside,
               ": more ranks, a higher ZeRO stage or recompute take less.\n");
  }
  return cat("\nThe largest train.micro_batch_size that fits into ", human_bytes(bytes), beside,
             ": ", size, ".\n", less_recompute_text(subject, usable));
}

}  // namespace

int run_plan(const PlanCommand& command) {
  Subject subject = command.config.empty() ? from_model_directory(command) : from_run_file(command);
  if (!command.device.empty() || command.gpu_memory_gib) {
    subject.layout.device = command.device == "cpu" ? planner::Device::cpu : planner::Device::cuda;
  }
  const planner::Plan plan = planner::make_plan(subject.model.decoder, subject.layout);
  check_groups(subject.optimizer, plan);
  std::cout << planner::to_text(plan);
  for (const std::string& note : subject.model.notes) std::cout << "\nNote: " << note << ".\n";
  if (command.gpu_memory_gib) std::cout << fitting_text(subject, *command.gpu_memory_gib);
  if (subject.dp_size_is_open) {
    std::cout << "\nThe dp size follows from the number of ranks: this is the plan of dp 1, "
                 "--dp-size N shows another.\n";
  }
  return static_cast<int>(ExitCode::done);
}

}  // namespace tptrain::apps
