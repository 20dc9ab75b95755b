#include "train/run_log.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/host.h"
#include "base/stop.h"
#include "base/text.h"
#include "device/device_facts.h"
#include "model/adapter.h"
#include "model/decoder_config.h"
#include "planner/plan.h"
#include "train/run_options.h"

namespace tptrain::train {
namespace {

constexpr double kMuchOfAStep = 0.1;

/// "node1 (4 ranks), node2 (4 ranks)". Collective.
std::string hosts_of_ranks(comm::MpiSession& session) {
  std::vector<std::pair<std::string, int>> hosts;
  for (const std::string& host : session.all_gather(host_name())) {
    if (hosts.empty() || hosts.back().first != host) hosts.emplace_back(host, 0);
    ++hosts.back().second;
  }
  std::vector<std::string> texts;
  for (const auto& [host, ranks] : hosts)
    texts.push_back(cat(host, " (", ranks, ranks == 1 ? " rank)" : " ranks)"));
  return join(texts);
}

}  // namespace

std::string peak_memory_of_ranks(comm::MpiSession& session, at::Device device) {
  std::vector<int64_t> peaks;
  for (const std::string& peak :
       session.all_gather(std::to_string(device::memory_use(device).peak_bytes)))
    peaks.push_back(std::stoll(peak));
  const auto [least, most] = std::minmax_element(peaks.begin(), peaks.end());
  if (peaks.size() == 1) return human_bytes(*most);
  return cat(human_bytes(*least), " (rank ", least - peaks.begin(), ") to ", human_bytes(*most),
             " (rank ", most - peaks.begin(), ")");
}

void log_begin(comm::MpiSession& session, const RunRequest& request, Logger& log) {
  const std::string hosts = hosts_of_ranks(session);
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char began[32] = {};
  std::strftime(began, sizeof began, "%Y-%m-%d %H:%M:%S UTC", &utc);
  log.info(request.program);
  log.info(cat("started ", began, " by: ", request.command_line));
  log.info(cat("hosts: ", hosts));
}

void log_model(const ResolvedConfig& resolved, Logger& log) {
  const config::RunConfig& run = resolved.run;
  const int64_t sequences = resolved.batch.global_batch_size();
  log.info(cat("model: ", resolved.decoder.model_type, ", ",
               with_thousands(model::parameter_count(resolved.decoder)), " parameters; ZeRO-",
               run.parallel.zero_stage));
  if (run.adapter) {
    const config::AdapterConfig& adapter = *run.adapter;
    log.info(cat("adapter: ", word(adapter.type), " of rank ", adapter.rank, ", scaled by ",
                 model::adapter_scale(adapter), ", on ", join(adapter.targets),
                 adapter.modules_to_save.empty()
                     ? std::string()
                     : cat("; trained whole: ", join(adapter.modules_to_save)),
                 "; ", with_thousands(model::adapter_parameters(resolved.decoder, adapter)),
                 " parameters train"));
  }
  log.info(cat("global batch: ", sequences, sequences == 1 ? " sequence" : " sequences", " = ",
               with_thousands(sequences * resolved.batch.seq_length), " tokens; accumulation ",
               resolved.batch.accumulation));
  log.info(cat("numbers: weights and activations ", word(run.train.dtype),
               run.train.gradient_dtype == config::Dtype::bf16
                   ? "; gradients of the layers' matrices bf16"
                   : ""));
  log.info(
      cat("gradients: summed ", word(*run.parallel.reduce_gradients), " in ",
          word(run.parallel.reduce_dtype),
          run.parallel.tp_size > 1 && run.parallel.sequence_parallel ? "; sequence parallel" : "",
          run.parallel.recompute == config::Recompute::none
              ? ""
              : cat("; recompute ", word(run.parallel.recompute))));
  const double share = planner::update_share(resolved.decoder, planned_layout(resolved));
  if (share > kMuchOfAStep)
    log.warn(cat("optimizer.type ", word(run.optimizer.type), " adds ", fixed(100 * share, 0),
                 " % to the arithmetic of a step of ",
                 with_thousands(sequences * resolved.batch.seq_length),
                 " tokens, whatever they are: a larger train.global_batch_size makes it a smaller "
                 "part"));
  if (run.scheduler.warmup_steps >= run.train.max_steps)
    log.warn(cat("scheduler.warmup_steps is ", run.scheduler.warmup_steps, ", train.max_steps ",
                 run.train.max_steps, ": the learning rate never reaches its peak"));
  if (!run.data.evaluates() && (run.eval.every_steps > 0 || run.eval.every_epochs > 0))
    log.warn("eval says when to evaluate, and there is no data.eval: nothing is evaluated");
  const int64_t positions = resolved.decoder.max_position_embeddings;
  if (positions > 0 && run.train.seq_length > positions)
    log.warn(cat("train.seq_length is ", run.train.seq_length,
                 ", the model's max_position_embeddings ", positions,
                 ": it has not learned the positions beyond"));
  if (run.train.attention_dropout > 0)
    log.warn(
        "train.attention_dropout is above 0: attention takes the unfused path, which is slower "
        "and makes the probabilities of one head at a time");
}

void say_outcome(const RunOutcome& outcome, const config::RunConfig& run, Logger& log) {
  if (outcome.out_of_patience)
    log.info(cat("eval_loss has not got lower for ", run.eval.patience,
                 run.eval.patience == 1 ? " evaluation" : " evaluations", " (eval.patience)"));
  const std::string reason = stop_reason();  // none: the time was up
  const std::string end = !outcome.stopped_on_request ? "done:"
                          : reason.empty()            ? "stopped at"
                                                      : cat("stopped on request (", reason, ") at");
  log.info(cat(end, " step ", outcome.state.step, " of ", run.train.max_steps,
               outcome.eval_loss ? cat(", held-out loss ", fixed(*outcome.eval_loss, 4)) : "",
               outcome.passed_over > 0
                   ? cat("; ", outcome.passed_over, " without a target passed over")
                   : ""));
  if (outcome.last_checkpoint)
    log.info(cat("  checkpoint: ", outcome.last_checkpoint->path.string()));
  log.info(cat("  metrics:    ", (std::filesystem::path(run.run_dir) / "metrics.jsonl").string()));
  log.info(cat("  log:        ", (std::filesystem::path(run.run_dir) / "log.txt").string()));
  for (const std::string& failure : outcome.failures) log.warn(failure);
  const std::string lost = log.failures();
  if (!lost.empty()) log.warn(lost);
}

}  // namespace tptrain::train
