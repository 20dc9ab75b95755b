#include "train/resume_check.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/manifest.h"
#include "model/adapter.h"
#include "model/config_differences.h"
#include "optim/update_rule.h"
#include "train/base_model.h"
#include "train/settings.h"

namespace tptrain::train {
namespace {

/// What of the checkpoint makes its position, or its values, mean something else here.
class ResumeCheck {
 public:
  ResumeCheck(const checkpoint::CheckpointInfo& info, const config::CheckpointConfig& config)
      : info_(info), config_(config) {}

  void model(const checkpoint::TrainState& fresh) {
    const model::DecoderConfig saved = saved_model();
    const auto now = model::decoder_config_from_json(fresh.model_json, "this run");
    if (saved == now) return;
    problems_.push_back(
        problem(cat("the checkpoint is of another model (",
                    checkpoint::one_line(model::differences(saved, now)), ")"))
            .at(info_.path.string())
            .remedy("Use the model section it was trained with, or train this model in another "
                    "run_dir."));
  }

  void adapter(const checkpoint::TrainState& fresh) {
    const std::string before = extra_in(info_.state), now = extra_in(fresh);
    if (before.empty() && now.empty()) return;
    const auto refuse_adapter = [&](std::string what) {
      problems_.push_back(
          problem(std::move(what))
              .at(info_.path.string())
              .remedy("Use the section adapter that it was trained with, or another run_dir."));
    };
    if (before.empty() || now.empty()) {
      return refuse_adapter(now.empty()
                                ? "the checkpoint is an adapter's, and this run has none"
                                : "the checkpoint is of a whole model, and this run trains an "
                                  "adapter");
    }
    const std::string different =
        model::differences(saved_model(), model::adapter_from_json(before, info_.path.string()),
                           model::adapter_from_json(now, "this run"));
    if (different.empty()) return;
    refuse_adapter(
        cat("the checkpoint is of another adapter (", checkpoint::one_line(different), ")"));
  }

  void tokenizer(const checkpoint::TrainState& fresh) {
    if (info_.state.tokenizer_hash == fresh.tokenizer_hash) return;
    refuse("data.tokenizer",
           cat("the checkpoint was trained with another tokenizer ('",
               checkpoint::one_line(info_.state.tokenizer_name), "')"),
           "Use that data.tokenizer");
  }

  /// What decides which sequences the next steps train on.
  void sequences(const checkpoint::TrainState& fresh) {
    if (info_.state.data_identity != fresh.data_identity) tokens(fresh);
    for (const Change& change : changed_settings(info_.state.settings, fresh.settings)) {
      if (info_.state.settings.empty() || !decides_the_sequences(change.key)) continue;
      refuse(change.key,
             cat(change.key, " is ", change.now, ", the checkpoint was trained with ",
                 checkpoint::one_line(change.before),
                 ": the data position would mean other sequences"),
             cat("Set ", change.key, " back"));
    }
  }

  void global_batch(const checkpoint::TrainState& fresh) {
    if (info_.state.global_batch_size == fresh.global_batch_size) return;
    refuse("train.global_batch_size",
           cat("the checkpoint's global batch is ", info_.state.global_batch_size,
               " sequences, this run's is ", fresh.global_batch_size),
           cat("Set train.global_batch_size: ", info_.state.global_batch_size,
               " (it works with any dp size that divides it)"));
  }

  void throw_if_any() const {
    if (!problems_.empty()) throw CheckpointError(problems_);
  }

 private:
  static std::string extra_in(const checkpoint::TrainState& state) {
    const auto found = state.extra.find(kAdapterExtra);
    return found == state.extra.end() ? "" : found->second;
  }

  /// Other text, or the same text read in another way.
  void tokens(const checkpoint::TrainState& fresh) {
    std::vector<Change> reading;
    if (!info_.state.settings.empty())
      reading = changed_settings(info_.state.settings, fresh.settings);
    std::erase_if(reading, [](const Change& change) {
      return !change.key.starts_with("data.train_on") && change.key != "data.chat_template" &&
             change.key != "data.text_key" && !change.key.starts_with("data.columns") &&
             !change.key.starts_with("data.roles") && change.key != "data.max_bad_fraction";
    });
    if (reading.empty()) {
      refuse("data.train",
             "data.train holds other text than when the checkpoint was written, or mixes its "
             "sources otherwise: the data position would mean other sequences",
             "Put it back");
      return;
    }
    refuse("data.train",
           cat("data.train gives other tokens than when the checkpoint was written (",
               checkpoint::one_line(text_of(reading)),
               "): the data position would mean other sequences"),
           "Set that back");
  }

  model::DecoderConfig saved_model() const {
    try {
      return model::decoder_config_from_json(info_.state.model_json, "its manifest");
    } catch (const ConfigError& e) {
      throw CheckpointError(
          problem(cat("the checkpoint's model cannot be read: ", checkpoint::plain_message(e)))
              .at(info_.path.string())
              .remedy("Resume from another checkpoint."));
    }
  }

  void refuse(const std::string& key, const std::string& what, const std::string& fix) {
    const std::vector<std::string>& allowed = config_.allow_changes;
    if (std::find(allowed.begin(), allowed.end(), key) != allowed.end()) return;
    problems_.push_back(
        problem(what)
            .at(info_.path.string())
            .remedy(cat(fix,
                        ", start anew in another run_dir, or go on with the change by "
                        "checkpoint.allow_changes: [",
                        key, "].")));
  }

  const checkpoint::CheckpointInfo& info_;
  const config::CheckpointConfig& config_;
  std::vector<Problem> problems_;
};

}  // namespace

void check_same_adapter(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh,
                        const config::RunConfig& run) {
  ResumeCheck check(info, run.checkpoint);
  check.adapter(fresh);
  check.throw_if_any();
}

void check_resumable(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh,
                     const config::RunConfig& run) {
  ResumeCheck check(info, run.checkpoint);
  check.model(fresh);
  check.adapter(fresh);
  check.tokenizer(fresh);
  if (info.state.step < run.train.max_steps) check.sequences(fresh);
  check.global_batch(fresh);
  check.throw_if_any();
}

void check_update_rule(const checkpoint::CheckpointInfo& info, Engine& engine,
                       const config::OptimizerConfig& optimizer) {
  const optim::UpdateRule& rule = optim::update_rule(optimizer.type);
  std::set<std::string> wanted;  // of what trains: a rule may keep this of some and that of others
  for (const parameters::Parameter* parameter : engine.decoder().parameters()) {
    if (!parameter->trains) continue;
    for (const optim::Slot& slot : rule.slots(rule.unit(*parameter), optimizer))
      wanted.insert(slot.name);
  }
  std::vector<std::string> kept;
  for (const sharding::StateKind& kind : info.kinds) {
    if (kind != sharding::kMaster) kept.push_back(kind);
  }
  if (std::set(kept.begin(), kept.end()) == wanted) return;
  const std::string trained_with = optim::rule_keeping(kept);
  throw CheckpointError(
      problem(cat("the checkpoint was trained with ",
                  trained_with.empty() ? std::string("another update rule") : trained_with,
                  " (it keeps ", join(kept, " and "), "), and optimizer.type is ",
                  word(optimizer.type), " (", join(rule.all_slots(), " and "), ")"))
          .at(info.path.string())
          .remedy(trained_with.empty() ? std::string("Train in another run_dir.")
                                       : cat("Set optimizer.type to ", trained_with,
                                             ", or train in another run_dir.")));
}

void check_same_run(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh) {
  const std::vector<Change> changes = changed_settings(info.state.settings, fresh.settings);
  if (changes.empty()) return;
  throw ConfigError(
      problem(cat("checkpoint.resume is never, and run_dir holds the checkpoints of a run with "
                  "other settings (",
                  checkpoint::one_line(text_of(changes)), ")"))
          .at(info.path.string())
          .remedy("Set run_dir to another directory for a new run, or checkpoint.resume to auto to "
                  "go on with that one under the new settings."));
}

}  // namespace tptrain::train
