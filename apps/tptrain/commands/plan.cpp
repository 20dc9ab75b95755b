// tptrain plan: the forecast of a run file or of a model's config.json. No MPI, no GPU, no
// parameters.
#include "planner/plan.h"

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "commands/commands.h"
#include "config/parse.h"
#include "model/decoder_config.h"
#include "tokenizer/tokenizer.h"
#include "train/resolve.h"
#include "train/run_options.h"

namespace tptrain::apps {
namespace {

constexpr int64_t kTextLimitBytes = int64_t{1} << 24;

struct Subject {
  model::DecoderConfig decoder;
  planner::Layout layout;
  bool dp_size_is_open = false;   // the run file leaves it to the number of ranks
  int64_t global_batch_size = 0;  // decides the micro-batches of a step, with dp; 0: the layout's
};

Subject from_run_file(const PlanCommand& command) {
  const std::string text = read_file(command.config, kTextLimitBytes, FailAs::config_error);
  const config::RunConfig run = config::parse_run_config(text, command.config, command.sets).config;
  const auto tokenizer = tokenizer::make_tokenizer(train::tokenizer_of(run));
  return {.decoder = model::decoder_config(run.model, tokenizer->vocab_size()),
          .layout = train::planned_layout(run),
          .dp_size_is_open = run.parallel.dp_size == 0,
          .global_batch_size = run.train.global_batch_size};
}

Subject from_model_directory(const PlanCommand& command) {
  const std::filesystem::path path = std::filesystem::path(command.model) / "config.json";
  const std::string text = read_file(path, kTextLimitBytes, FailAs::config_error);
  return {.decoder = model::decoder_config_from_json(text, path.string()),
          .layout = {},
          .dp_size_is_open = true,
          .global_batch_size = 0};
}

// Which micro-batch a GPU takes.
std::string fitting_text(const Subject& subject, double gpu_memory_gib) {
  const auto bytes = static_cast<int64_t>(gpu_memory_gib * (int64_t{1} << 30));
  const int64_t usable = bytes - planner::kLibraryBytes;
  const int64_t size = planner::largest_micro_batch(subject.decoder, subject.layout, usable);
  const std::string beside = cat(" (", human_bytes(planner::kLibraryBytes), " left to libraries)");
  if (size == 0) {
    return cat("\nNot even train.micro_batch_size: 1 fits into ", human_bytes(bytes), beside,
               ": more ranks, a higher ZeRO stage or recompute take less.\n");
  }
  return cat("\nThe largest train.micro_batch_size that fits into ", human_bytes(bytes), beside,
             ": ", size, ".\n");
}

}  // namespace

int run_plan(const PlanCommand& command) {
  Subject subject = command.config.empty() ? from_model_directory(command) : from_run_file(command);
  subject.layout.tp_size = command.tp_size.value_or(subject.layout.tp_size);
  subject.layout.dp_size = command.dp_size.value_or(subject.layout.dp_size);
  if (subject.global_batch_size > 0) {
    // What does not divide is the job's to refuse: here the dp size may be one to try.
    const int64_t once =
        std::max<int64_t>(1, subject.layout.micro_batch_size * subject.layout.dp_size);
    subject.layout.micro_batches = std::max<int64_t>(1, subject.global_batch_size / once);
  }
  if (!command.device.empty() || command.gpu_memory_gib) {
    subject.layout.device = command.device == "cpu" ? planner::Device::cpu : planner::Device::cuda;
  }
  std::cout << planner::to_text(planner::make_plan(subject.decoder, subject.layout));
  if (command.gpu_memory_gib) std::cout << fitting_text(subject, *command.gpu_memory_gib);
  if (subject.dp_size_is_open && !command.dp_size) {
    std::cout << "\nThe dp size follows from the number of ranks: this is the plan of dp 1, "
                 "--dp-size N shows another.\n";
  }
  return static_cast<int>(ExitCode::done);
}

}  // namespace tptrain::apps
