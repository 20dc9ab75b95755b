#include "train/resolve.h"

#include <ATen/Context.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "adapters/peft_files.h"
#include "base/files.h"
#include "base/text.h"
#include "model/adapter.h"
#include "model/freeze.h"
#include "optim/schedule.h"
#include "train/run_options.h"

namespace tptrain::train {

std::string tokenizer_of(const config::RunConfig& run) {
  if (!run.data.tokenizer.empty()) return run.data.tokenizer;
  return run.model.path.empty() ? "bytes" : run.model.path;
}

void check_model_directory(const config::Parsed& parsed) {
  const std::string& path = parsed.config.model.path;
  if (path.empty()) return;
  std::error_code error;  // what cannot be looked at is told where its files are read
  const std::filesystem::file_type type = std::filesystem::status(path, error).type();
  if (type != std::filesystem::file_type::not_found &&
      type != std::filesystem::file_type::regular) {
    return model::check_model_directory(path);
  }
  const auto place = parsed.places.find("model.path");
  throw ConfigError(problem(cat("model.path is ", path, ", and there is no such directory"))
                        .at(place == parsed.places.end() ? "" : place->second)
                        .must("be the directory of a Hugging Face model")
                        .remedy(cat("Fetch one, as in `tptrain fetch Qwen/Qwen2.5-0.5B --out ",
                                    path, "`; a path begins where the program was started.")));
}

namespace {

class Checker {
 public:
  Checker(const config::Parsed& parsed, int world_size)
      : parsed_(parsed), world_size_(world_size) {}

  comm::MeshShape mesh() {
    const config::ParallelConfig& parallel = parsed_.config.parallel;
    const int64_t tp = parallel.tp_size;
    if (parallel.dp_size == 0) {
      if (world_size_ % tp != 0) {
        complain("parallel.tp_size",
                 cat("parallel.tp_size is ", tp, ", but the job has ", world_size_, " ranks"),
                 "divide the number of ranks",
                 cat("Start a multiple of ", tp, " ranks (mpirun -n ", tp * (world_size_ / tp + 1),
                     "), or set parallel.tp_size."));
        return {.dp_size = 1, .tp_size = static_cast<int>(tp)};
      }
      return {.dp_size = static_cast<int>(world_size_ / tp), .tp_size = static_cast<int>(tp)};
    }
    if (tp * parallel.dp_size != world_size_) {
      complain("parallel.dp_size",
               cat("parallel.tp_size ", tp, " x parallel.dp_size ", parallel.dp_size, " is ",
                   tp * parallel.dp_size, ", but the job has ", world_size_,
                   world_size_ == 1 ? " rank" : " ranks"),
               "equal the number of ranks",
               cat("Start it with mpirun -n ", tp * parallel.dp_size,
                   ", or leave parallel.dp_size out and it becomes ranks / tp_size."));
    }
    return {.dp_size = static_cast<int>(parallel.dp_size), .tp_size = static_cast<int>(tp)};
  }

  void model(const model::DecoderConfig& decoder, int64_t tokenizer_vocab_size) {
    for (Problem& p : model::check_tp_size(decoder, parsed_.config.parallel.tp_size)) {
      if (p.where.empty()) p.where = place("parallel.tp_size");
      problems_.push_back(std::move(p));
    }
    for (Problem& p : model::check_seq_length(decoder, parsed_.config.train.seq_length)) {
      if (p.where.empty()) p.where = place("train.seq_length");
      problems_.push_back(std::move(p));
    }
    if (problems_.empty() && parsed_.config.adapter) {
      for (Problem& p : model::check_adapter(decoder, *parsed_.config.adapter))
        problems_.push_back(std::move(p.at(place("adapter"))));
    }
    if (problems_.empty()) {  // of a tp size that works the tensors can be named
      for (Problem& p :
           model::check_freeze(decoder, parsed_.config.model.freeze, parsed_.config.adapter))
        problems_.push_back(std::move(p.at(place("model.freeze"))));
    }
    if (parsed_.config.model.architecture && decoder.vocab_size < tokenizer_vocab_size) {
      complain("model.architecture.vocab_size",
               cat("vocab_size is ", decoder.vocab_size, ", but the tokenizer '",
                   tokenizer_of(parsed_.config), "' has ", tokenizer_vocab_size, " ids"),
               cat("be at least ", tokenizer_vocab_size),
               "Leave vocab_size out to take the tokenizer's, or name the model's own tokenizer.");
    }
  }

  data::BatchShape batch(const comm::MeshShape& mesh) {
    const config::TrainConfig& train = parsed_.config.train;
    data::BatchShape shape{.seq_length = train.seq_length,
                           .micro_batch_size = train.micro_batch_size,
                           .accumulation = 1,
                           .dp_size = mesh.dp_size};
    if (train.grad_accum_steps > 0) shape.accumulation = train.grad_accum_steps;
    if (train.global_batch_size > 0) {
      const int64_t once = train.micro_batch_size * mesh.dp_size;
      if (train.global_batch_size % once != 0) {
        complain("train.global_batch_size",
                 cat("train.global_batch_size is ", train.global_batch_size,
                     ", but one micro-batch on every dp rank is ", once,
                     " sequences (train.micro_batch_size ", train.micro_batch_size, " x dp ",
                     mesh.dp_size, ")"),
                 cat("be a multiple of ", once),
                 cat("Set it to ", once * (train.global_batch_size / once + 1),
                     ", or change train.micro_batch_size."));
      }
      shape.accumulation = std::max<int64_t>(1, train.global_batch_size / once);
    }
    if (train.gradient_dtype == config::Dtype::bf16 && shape.accumulation > 1 &&
        !reduces_per_micro_batch(parsed_.config.parallel)) {
      complain(
          "train.gradient_dtype",
          cat("train.gradient_dtype is bf16, and a step adds up ", shape.accumulation,
              " micro-batches in its gradients"),
          "be fp32 where they add up",
          "Set parallel.reduce_gradients to per_micro_batch (zero_stage 2 and 3 always do so), "
          "which adds each to fp32, or leave train.gradient_dtype out.");
    }
    return shape;
  }

  comm::DeviceType device() const {
    if (parsed_.config.train.device == config::Device::cpu) return comm::DeviceType::cpu;
    if (parsed_.config.train.device == config::Device::cuda) return comm::DeviceType::cuda;
    return at::hasCUDA() ? comm::DeviceType::cuda : comm::DeviceType::cpu;
  }

  void throw_if_any() const {
    if (!problems_.empty()) throw ConfigError(problems_);
  }

 private:
  std::string place(const std::string& key) const {
    const auto found = parsed_.places.find(key);
    return found == parsed_.places.end() ? std::string() : found->second;
  }
  void complain(const std::string& key, std::string received, std::string constraint,
                std::string fix) {
    problems_.push_back(problem(std::move(received))
                            .at(place(key))
                            .must(std::move(constraint))
                            .remedy(std::move(fix)));
  }

  const config::Parsed& parsed_;
  int world_size_;
  std::vector<Problem> problems_;
};

/// With the section adapter that the directory of model.adapter says. Throws ConfigError where the
/// run file says another.
config::Parsed with_adapter_of_directory(const config::Parsed& parsed,
                                         const model::DecoderConfig& decoder) {
  const std::string& directory = parsed.config.model.adapter;
  if (directory.empty()) return parsed;
  config::Parsed with = parsed;
  const config::AdapterConfig said = adapters::read_peft_config(directory, decoder);
  if (!with.config.adapter) {
    with.config.adapter = said;
    return with;
  }
  const std::string differences = model::differences(decoder, said, *with.config.adapter);
  if (differences.empty()) return with;
  const auto place = parsed.places.find("model.adapter");
  throw ConfigError(
      problem(cat("model.adapter is ", directory,
                  ", and the section adapter is another: ", differences))
          .at(place == parsed.places.end() ? "" : place->second)
          .must("be the adapter that the section describes")
          .remedy("Leave the section adapter out to go on with the directory's, or say the same."));
}

std::string hash_of_training(const ResolvedConfig& resolved) {
  std::string text;
  for (const auto& [key, value] : decisive_settings(resolved.run))
    text += cat(key, ": ", value, "\n");
  return sha256_hex(text + model::to_json(resolved.decoder));
}

void resolve_what_follows_steps(ResolvedConfig& resolved) {
  config::SchedulerConfig& scheduler = resolved.run.scheduler;
  if (scheduler.type == config::Schedule::wsd)
    scheduler.decay_steps = optim::wsd_decay_steps(scheduler, resolved.run.train.max_steps);
  resolved.training_hash = hash_of_training(resolved);
}

}  // namespace

ResolvedConfig resolve(const config::Parsed& run_file, const model::DecoderConfig& decoder,
                       int64_t tokenizer_vocab_size, int world_size) {
  const config::Parsed parsed = with_adapter_of_directory(run_file, decoder);
  // Parsing has checked these; whoever changed a value in code since then is told as well, before
  // sizes that cannot be are divided by.
  if (const std::vector<Problem> problems = config::check_sections(parsed.config, parsed.places);
      !problems.empty()) {
    throw ConfigError(problems);
  }
  Checker checker(parsed, world_size);
  ResolvedConfig resolved;
  resolved.run = parsed.config;
  resolved.decoder = decoder;
  resolved.mesh = checker.mesh();
  checker.model(decoder, tokenizer_vocab_size);
  resolved.batch = checker.batch(resolved.mesh);
  resolved.device = checker.device();
  checker.throw_if_any();

  resolved.run.parallel.dp_size = resolved.mesh.dp_size;
  resolved.run.train.global_batch_size = resolved.batch.global_batch_size();
  resolved.run.train.grad_accum_steps = 0;  // said by the global batch from here on
  resolved.run.data.tokenizer = tokenizer_of(resolved.run);
  if (!resolved.run.model.init) {
    resolved.run.model.init =
        resolved.run.model.path.empty() ? config::Init::random : config::Init::pretrained;
  }
  resolved.run.parallel.reduce_gradients = reduces_per_micro_batch(resolved.run.parallel)
                                               ? config::ReduceGradients::per_micro_batch
                                               : config::ReduceGradients::per_step;
  // Before the fall of wsd is derived: it follows max_steps, and is no setting that somebody
  // changed.
  resolved.settings = decisive_settings(resolved.run);
  if (resolved.run.train.epochs == 0) resolve_what_follows_steps(resolved);
  return resolved;
}

void resolve_epochs(ResolvedConfig& resolved, int64_t sequences) {
  config::TrainConfig& train = resolved.run.train;
  if (train.epochs == 0) return;
  // A whole number of epochs must not become a step more by rounding.
  const double steps = train.epochs * static_cast<double>(sequences) /
                       static_cast<double>(resolved.batch.global_batch_size());
  train.max_steps = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(steps - 1e-9)));
  train.epochs = 0;  // said by the steps from here on
  resolve_what_follows_steps(resolved);
}

}  // namespace tptrain::train
