// What one key of the run file asks of another. What depends on the number of ranks or on the model
// is checked where those are known (train/resolve.cpp).
#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>

#include "base/text.h"
#include "config/checks.h"
#include "config/duration.h"
#include "config/keys.h"
#include "config/share.h"

namespace tptrain::config {
namespace {

class CrossChecker {
 public:
  CrossChecker(const RunConfig& config, const Places& places, const std::set<std::string>& refused)
      : config_(config), places_(places), refused_(refused) {}

  void batch() {
    const TrainConfig& train = config_.train;
    if (!usable({"train.global_batch_size", "train.micro_batch_size"})) return;
    if (train.global_batch_size <= 0 || train.micro_batch_size <= 0) return;
    if (train.global_batch_size % train.micro_batch_size == 0) return;
    complain({"train.global_batch_size", "train.micro_batch_size"},
             problem(cat("train.global_batch_size is ", train.global_batch_size,
                         " and train.micro_batch_size ", train.micro_batch_size))
                 .must("be a multiple of the micro-batch size"));
  }

  void initial_values() {
    if (!usable({"model.init", "model.architecture"})) return;
    if (config_.model.init != Init::pretrained || !config_.model.architecture) return;
    complain({"model.init"},
             problem("model.init is pretrained beside model.architecture")
                 .must("stand beside model.path, where the weights are")
                 .remedy("Name the model's directory with model.path, or leave model.init out to "
                         "train from random values."));
  }

  void reduction() {
    const ParallelConfig& parallel = config_.parallel;
    if (!usable({"parallel.reduce_gradients", "parallel.zero_stage"})) return;
    if (parallel.reduce_gradients != ReduceGradients::per_step) return;
    if (parallel.zero_stage != 2 && parallel.zero_stage != 3) return;
    complain({"parallel.reduce_gradients", "parallel.zero_stage"},
             problem(cat("parallel.reduce_gradients is per_step and parallel.zero_stage ",
                         parallel.zero_stage))
                 .must("be per_micro_batch with zero_stage 2 and 3, where no rank has room for the "
                       "whole gradient of a step")
                 .remedy("Leave reduce_gradients out, or set zero_stage to 0 or 1."));
  }

  void master_weights() {
    if (!usable({"optimizer.master_dtype", "train.dtype"})) return;
    if (config_.optimizer.master_dtype != Dtype::bf16 || config_.train.dtype != Dtype::fp32) return;
    complain({"optimizer.master_dtype", "train.dtype"},
             problem("optimizer.master_dtype is bf16 and train.dtype fp32")
                 .must("be fp32 where the weights of the layers are")
                 .remedy("Set train.dtype to bf16, or leave master_dtype out."));
  }

  void gradients() {
    if (config_.train.gradient_dtype != Dtype::bf16 || !usable({"train.gradient_dtype"})) return;
    const auto refuse = [this](const char* key, const std::string& value, const char* constraint,
                               const char* remedy) {
      if (!usable({key})) return;
      complain({"train.gradient_dtype", key},
               problem(cat("train.gradient_dtype is bf16 and ", key, " ", value))
                   .must(constraint)
                   .remedy(remedy));
    };
    if (config_.train.dtype != Dtype::bf16)
      refuse("train.dtype", std::string(word(config_.train.dtype)),
             "stand beside train.dtype bf16, whose products it is for",
             "Set train.dtype to bf16, or leave train.gradient_dtype out.");
    if (config_.optimizer.type == OptimizerType::muon)
      refuse("optimizer.type", word(config_.optimizer.type),
             "be fp32 with muon, which works on whole matrices of them",
             "Leave train.gradient_dtype out, or take another optimizer.type.");
    if (config_.parallel.zero_stage == 0 &&
        config_.parallel.reduce_gradients == ReduceGradients::per_micro_batch)
      refuse("parallel.zero_stage", "0, with reduce_gradients per_micro_batch",
             "be fp32 there, where every rank receives the sum of all micro-batches",
             "Set parallel.zero_stage to 1, or leave one of the others out.");
  }

  void fp8() {
    if (usable({"train.fp8", "train.fp8_all_gather"}) && config_.train.fp8_all_gather == Fp8::on &&
        config_.train.fp8 == Fp8::off) {
      complain({"train.fp8_all_gather", "train.fp8"},
               problem("train.fp8_all_gather is on and train.fp8 off")
                   .must("stand beside train.fp8 on, whose casts are what is gathered")
                   .remedy("Set train.fp8 to on, or leave train.fp8_all_gather out."));
    }
    if (!usable({"train.fp8", "train.dtype"})) return;
    if (config_.train.fp8 != Fp8::on || config_.train.dtype == Dtype::bf16) return;
    complain({"train.fp8", "train.dtype"},
             problem(cat("train.fp8 is on and train.dtype ", word(config_.train.dtype)))
                 .must("stand beside train.dtype bf16, which is what FP8 is cast from")
                 .remedy("Set train.dtype to bf16, or leave train.fp8 out."));
  }

  void adapter() {
    if (usable({"model.adapter", "checkpoint.init_from"}) && !config_.model.adapter.empty() &&
        !config_.checkpoint.init_from.empty()) {
      complain({"model.adapter", "checkpoint.init_from"},
               problem("model.adapter and checkpoint.init_from are both given")
                   .must("be at most one of them")
                   .remedy("Leave one out: each says with which adapter the training begins."));
    }
    if (!config_.adapter) return;
    if (usable({"train.fp8"}) && config_.train.fp8 == Fp8::on) {
      complain({"train.fp8"},
               problem("train.fp8 is on beside an adapter")
                   .must("be off: the products of a frozen base in FP8 are not built")
                   .remedy("Leave train.fp8 out."));
    }
    if (usable({"optimizer.type"}) && config_.optimizer.type == OptimizerType::muon) {
      complain(
          {"optimizer.type"},
          problem("optimizer.type is muon beside an adapter")
              .must("be a rule by elements: an orthogonal update is none of a low-rank matrix's "
                    "factors")
              .remedy("Leave optimizer.type out for adamw."));
    }
    if (usable({"adapter.base_dtype", "train.dtype"}) &&
        config_.adapter->base_dtype == BaseDtype::bf16 && config_.train.dtype == Dtype::fp32) {
      complain({"adapter.base_dtype", "train.dtype"},
               problem("adapter.base_dtype is bf16, and train.dtype is fp32")
                   .must("be the type that the linears compute in, or nf4")
                   .remedy("Set train.dtype to bf16, or leave adapter.base_dtype out."));
    }
    if (!usable({"adapter.targets"})) return;
    const std::vector<std::string>& targets = config_.adapter->targets;
    if (targets.empty()) {
      complain({"adapter.targets", "adapter"},
               problem("adapter.targets is empty")
                   .must("name at least one linear")
                   .remedy(cat("Leave it out for ", kAllLinear, ".")));
    } else if (targets.size() > 1 && std::ranges::count(targets, kAllLinear) > 0) {
      complain({"adapter.targets", "adapter"},
               problem(cat("adapter.targets names ", kAllLinear, " and others"))
                   .must("be one of both")
                   .remedy(cat(kAllLinear,
                               " has every linear of the layers; what else is to train "
                               "goes into adapter.modules_to_save.")));
    }
  }

  // Dropout draws its numbers by sequence and position, which masked documents do not keep.
  void document_mask() {
    const auto not_with = [this](const char* key, double probability) {
      if (!config_.data.document_mask || probability <= 0) return;
      if (!usable({"data.document_mask", key})) return;
      complain({"data.document_mask", key},
               problem(cat("data.document_mask is true and ", key, " ", probability))
                   .must("stand without dropout: the two are not supported together")
                   .remedy(cat("Set ", key, " to 0, or leave data.document_mask out.")));
    };
    not_with("train.attention_dropout", config_.train.attention_dropout);
    not_with("train.residual_dropout", config_.train.residual_dropout);
    if (config_.adapter) not_with("adapter.dropout", config_.adapter->dropout);
  }

  void mixture() {
    if (!usable({"data.train"})) return;
    const std::vector<DataSource>& sources = config_.data.train;
    std::set<std::string> names;
    for (size_t i = 0; i < sources.size(); ++i) {
      const DataSource& source = sources[i];
      const std::string name = cat("data.train[", i, "]");
      if (source.weight.has_value() != sources.front().weight.has_value()) {
        complain({"data.train"},
                 problem(cat(name, source.weight ? " has" : " has no",
                             " weight, and data.train[0] has ", source.weight ? "none" : "one"))
                     .must("be given for every entry or for none")
                     .remedy("Without weights each takes part by its size."));
      }
      if (source.weight && source.repeat > 1) {
        complain({"data.train"},
                 problem(cat(name, " has weight ", *source.weight, " and repeat ", source.repeat))
                     .must("have one of them")
                     .remedy("The weight says how often it is visited."));
      }
      if (!source.name.empty() && !names.insert(source.name).second) {
        complain({"data.train"}, problem(cat(name, ".name is ", source.name, " again"))
                                     .must("be another for each entry"));
      }
      named_twice(sources, i);
    }
  }

  void columns() {
    if (!usable({"data.columns", "data.columns.text", "data.text_key"})) return;
    const DataConfig& data = config_.data;
    const auto text = data.columns.find("text");
    if (text == data.columns.end() || data.text_key == "text" || data.text_key == text->second)
      return;
    complain(
        {"data.columns.text", "data.text_key"},
        problem(cat("data.columns.text is ", text->second, " and data.text_key ", data.text_key))
            .must("name one key")
            .remedy("Leave data.text_key out."));
  }

  void roles() {
    if (usable({"data.roles"})) one_role_a_word("data.roles", "data.roles", config_.data.roles);
    for (const auto& [key, sources] : {std::pair{"data.train", &config_.data.train},
                                       std::pair{"data.eval", &config_.data.eval}}) {
      if (!usable({key})) continue;
      for (size_t i = 0; i < sources->size(); ++i) {
        const DataSource& source = (*sources)[i];
        one_role_a_word(
            key, cat(key, source.set.empty() ? cat("[", i, "]") : cat(".", source.set), ".roles"),
            source.roles);
      }
    }
  }

  void one_role_a_word(const char* key, const std::string& name, const Roles& roles) {
    std::map<std::string, std::string> role_of;
    for (const auto& [role, words] : roles) {
      for (const std::string& word : words) {
        const auto [known, added] = role_of.emplace(word, role);
        if (added || known->second == role) continue;
        complain({key},
                 problem(cat(name, " has \"", word, "\" for ", known->second, " and for ", role))
                     .must("have each word once"));
      }
    }
  }

  void eval_share() {
    const std::string& text = config_.data.eval_share;
    if (!usable({"data.eval_share"}) || text.empty()) return;
    const std::optional<Share> share = share_of(text);
    if (!share || share->count > 0 || share->fraction >= 1) {
      complain({"data.eval_share"}, problem(cat("data.eval_share is ", text))
                                        .must("be a share below 100%, as 1% or 0.5%")
                                        .remedy(hint_for_share(text)));
    }
    if (!usable({"data.eval"}) || config_.data.eval.empty()) return;
    complain({"data.eval_share"}, problem("data.eval_share stands beside data.eval")
                                      .must("be one of the two")
                                      .remedy("Files to evaluate on need nothing held out."));
  }

  /// One path in two entries that read it alike, and say of it different things.
  void named_twice(const std::vector<DataSource>& sources, size_t i) {
    const DataSource& source = sources[i];
    for (size_t j = 0; j < i; ++j) {
      const DataSource& earlier = sources[j];
      if (earlier == source || earlier.path != source.path || earlier.format != source.format ||
          earlier.columns != source.columns)
        continue;
      complain(
          {"data.train"},
          problem(cat("data.train[", j, "] and data.train[", i, "] are both ", source.path))
              .must("be one entry, which says how much of it is trained on")
              .remedy("Add up their weights, or write repeat; files of two entries are trained "
                      "on twice."));
      return;
    }
  }

  void decay_steps() {
    const SchedulerConfig& scheduler = config_.scheduler;
    if (!usable({"scheduler.decay_steps", "scheduler.type"}) || scheduler.decay_steps <= 0) return;
    const std::string received = cat("scheduler.decay_steps is ", scheduler.decay_steps);
    if (scheduler.type == Schedule::constant) {
      complain({"scheduler.decay_steps"},
               problem(cat(received, " and scheduler.type constant, which never falls"))
                   .must("stand beside scheduler.type wsd")
                   .remedy("Set scheduler.type to wsd, or leave decay_steps out."));
    } else if (scheduler.type != Schedule::wsd) {
      complain({"scheduler.decay_steps"},
               problem(cat(received, " and scheduler.type ", word(scheduler.type),
                           ", which falls from the warm-up on"))
                   .must("stand beside scheduler.type wsd")
                   .remedy("Set scheduler.type to wsd, or leave decay_steps out."));
    }
    if (!usable({"train.max_steps"}) || config_.train.max_steps <= 0) return;
    if (scheduler.decay_steps <= config_.train.max_steps) return;
    complain({"scheduler.decay_steps", "train.max_steps"},
             problem(cat(received, " and train.max_steps ", config_.train.max_steps))
                 .must("be at most train.max_steps")
                 .remedy("Leave it out for a tenth of train.max_steps."));
  }

  void min_lr() {
    const SchedulerConfig& scheduler = config_.scheduler;
    if (!usable({"scheduler.min_lr", "scheduler.type", "optimizer.learning_rate"})) return;
    if (scheduler.type == Schedule::constant) return;
    if (scheduler.min_lr <= config_.optimizer.learning_rate) return;
    complain(
        {"scheduler.min_lr", "optimizer.learning_rate"},
        problem(cat("scheduler.min_lr is ", yaml_text(scheduler.min_lr),
                    " and optimizer.learning_rate ", yaml_text(config_.optimizer.learning_rate)))
            .must("be at most the learning rate, which falls to it")
            .remedy("Lower it with the learning rate: a tenth of that is usual."));
  }

  void max_time() {
    const std::string& text = config_.train.max_time;
    if (!usable({"train.max_time"}) || text.empty() || seconds_of(text)) return;
    complain({"train.max_time"}, problem(cat("train.max_time is ", text))
                                     .must("be a length of time with its unit, as 90m, 4h, 2d or "
                                           "1h30m"));
  }

  void store_rules() {
    const CheckpointConfig& checkpoint = config_.checkpoint;
    if (usable({"checkpoint.keep_every", "checkpoint.save_steps"}) && checkpoint.keep_every > 0 &&
        (checkpoint.save_steps <= 0 || checkpoint.keep_every % checkpoint.save_steps != 0)) {
      complain({"checkpoint.keep_every"},
               problem(cat("checkpoint.keep_every is ", checkpoint.keep_every,
                           " and checkpoint.save_steps ", checkpoint.save_steps))
                   .must("be a multiple of it: what is not saved cannot be kept"));
    }
    if (usable({"checkpoint.keep_best", "data.eval"}) && checkpoint.keep_best != KeepBest::none &&
        !config_.data.evaluates()) {
      complain({"checkpoint.keep_best"},
               problem("checkpoint.keep_best is eval_loss, and there is no data.eval")
                   .must("stand beside data.eval or data.eval_share, of which that is the loss"));
    }
    if (usable({"eval.patience", "data.eval", "data.eval_share"}) && config_.eval.patience > 0 &&
        !config_.data.evaluates()) {
      complain(
          {"eval.patience"},
          problem(cat("eval.patience is ", config_.eval.patience, ", and there is no data.eval"))
              .must("stand beside data.eval or data.eval_share, whose losses it counts"));
    }
    if (usable({"checkpoint.init_from", "checkpoint.resume"}) && !checkpoint.init_from.empty() &&
        checkpoint.resumes() == Resume::path) {
      complain({"checkpoint.init_from"},
               problem("checkpoint.init_from stands beside the path of checkpoint.resume")
                   .must("be one of the two")
                   .remedy("resume goes on with a training; init_from begins one with the weights "
                           "of another."));
    }
  }

  std::vector<Problem> take() { return std::move(problems_); }

 private:
  bool usable(std::initializer_list<const char*> keys) const {
    return std::none_of(keys.begin(), keys.end(), [this](const std::string& key) {
      return std::any_of(refused_.begin(), refused_.end(),
                         [&](const std::string& refused) { return is_at_or_below(key, refused); });
    });
  }

  // At the place of the first of `keys` that was given.
  void complain(std::initializer_list<const char*> keys, Problem p) {
    for (const std::string key : keys) {
      if (p.where.empty()) p.at(place_of(key, places_, ""));
    }
    problems_.push_back(std::move(p));
  }

  const RunConfig& config_;
  const Places& places_;
  const std::set<std::string>& refused_;
  std::vector<Problem> problems_;
};

}  // namespace

std::vector<Problem> cross_checks(const RunConfig& config, const Places& places,
                                  const std::set<std::string>& refused) {
  CrossChecker checker(config, places, refused);
  checker.batch();
  checker.initial_values();
  checker.reduction();
  checker.master_weights();
  checker.gradients();
  checker.fp8();
  checker.adapter();
  checker.document_mask();
  checker.mixture();
  checker.columns();
  checker.roles();
  checker.eval_share();
  checker.decay_steps();
  checker.min_lr();
  checker.max_time();
  checker.store_rules();
  return checker.take();
}

}  // namespace tptrain::config
