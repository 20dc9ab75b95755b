// tptrain generate: continues a text from a checkpoint; by itself or under mpirun, where the ranks
// are the tp axis. Not a server: one prompt, then it ends.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/find_checkpoints.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "commands/commands.h"
#include "inference/generator.h"
#include "inference/load_parameters.h"
#include "inference/utf8_stream.h"
#include "job.h"
#include "model/decoder.h"
#include "tokenizer/tokenizer.h"
#include "train/device_facts.h"
#include "zero/param_buckets.h"

namespace tptrain::apps {
namespace {

using checkpoint::CheckpointReader;
using Clock = std::chrono::steady_clock;

/// Rank 0 decides which checkpoint, every rank opens it. Collective.
std::unique_ptr<CheckpointReader> open_checkpoint(comm::MpiSession& session,
                                                  const std::string& path) {
  std::string chosen;
  comm::agree(session, [&] {
    if (session.rank() == 0) chosen = checkpoint::newest_valid(path).path.string();
  });
  chosen = session.broadcast(chosen, 0);
  std::unique_ptr<CheckpointReader> reader;
  comm::agree(session, [&] { reader = std::make_unique<CheckpointReader>(chosen); });
  return reader;
}

std::unique_ptr<tokenizer::Tokenizer> tokenizer_of(const checkpoint::CheckpointInfo& info) {
  auto tokenizer = tokenizer::make_tokenizer(info.state.tokenizer_name);
  if (tokenizer->hash() == info.state.tokenizer_hash) return tokenizer;
  throw CheckpointError(
      problem(cat("tokenizer '", info.state.tokenizer_name, "' has the hash ", tokenizer->hash(),
                  ", the manifest says ", info.state.tokenizer_hash))
          .at(info.path.string())
          .must("be the tokenizer that the model was trained with")
          .remedy(
              "Put the files of that tokenizer back: with another one the ids mean other text."));
}

void check_ranks(const model::DecoderConfig& config, int ranks) {
  if (model::check_tp_size(config, ranks).empty()) return;
  throw ConfigError(
      problem(cat("there are ", ranks, " ranks, and generate cuts the model over all of them"))
          .must("be a tp size that divides the model")
          .remedy(cat("tp sizes that work for this model: ", join(model::working_tp_sizes(config)),
                      ". Start that many ranks.")));
}

comm::DeviceType device_type(const std::string& name) {
  if (name == "cpu") return comm::DeviceType::cpu;
  if (at::hasCUDA()) return comm::DeviceType::cuda;
  if (name == "auto") return comm::DeviceType::cpu;
  throw ConfigError(problem("--device is cuda, but this build of tptrain or this host has no CUDA")
                        .remedy("Use --device cpu or auto, or a build of the cuda preset."));
}

/// Ids -> standard output as they come. The text of an id may depend on those before it, so all are
/// decoded anew and what is beyond the text so far is new.
class TextStream {
 public:
  TextStream(const tokenizer::Tokenizer& tokenizer, std::vector<int32_t> prompt, bool prints)
      : tokenizer_(tokenizer), ids_(std::move(prompt)), prints_(prints) {
    shown_bytes_ = tokenizer_.decode(ids_).size();
  }
  void text(const std::string& whole) {
    if (prints_) std::cout << whole << std::flush;
  }
  void token(int32_t id) {
    if (!prints_) return;
    ids_.push_back(id);
    const std::string bytes = tokenizer_.decode(ids_);
    if (bytes.size() <= shown_bytes_) return;
    text(utf8_.push(std::string_view(bytes).substr(shown_bytes_)));
    shown_bytes_ = bytes.size();
  }
  void end() { text(utf8_.finish() + "\n"); }

 private:
  const tokenizer::Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  bool prints_;
  size_t shown_bytes_ = 0;
  inference::Utf8Stream utf8_;
};

void generate(comm::MpiSession& session, const GenerateCommand& command) {
  inference::SamplingOptions sampling = {.max_new_tokens = command.max_new_tokens,
                                         .temperature = command.temperature,
                                         .top_k = command.top_k,
                                         .top_p = command.top_p,
                                         .seed = command.seed};
  comm::agree(session, [&] { inference::check_sampling_options(sampling); });

  const std::unique_ptr<CheckpointReader> reader = open_checkpoint(session, command.checkpoint);
  const checkpoint::CheckpointInfo& info = reader->info();
  model::DecoderConfig config;
  comm::DeviceType device = comm::DeviceType::cpu;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::vector<int32_t> prompt;
  comm::agree(session, [&] {
    config = model::decoder_config_from_json(info.state.model_json, info.path.string());
    check_ranks(config, session.size());
    device = device_type(command.device);
    tokenizer = tokenizer_of(info);
    prompt = tokenizer->encode(command.prompt);
    inference::check_prompt(prompt, config.vocab_size);
  });
  sampling.vocab_limit = tokenizer->vocab_size();

  comm::DeviceMesh mesh(session, {.dp_size = 1, .tp_size = session.size()}, device);
  at::set_num_threads(std::max(1, train::available_cores() / session.local_size()));
  model::Decoder decoder(config, mesh.tp());
  zero::ParamBuckets buckets(decoder.blocks(), {.rank = 0, .size = 1}, {.device = mesh.device()});
  comm::agree(session, [&] { inference::load_parameters(buckets, *reader); });

  TextStream stream(*tokenizer, prompt, /*prints=*/session.rank() == 0);
  stream.text(command.prompt);
  const Clock::time_point begin = Clock::now();
  const std::vector<int32_t> ids =
      inference::generate(decoder, prompt, std::vector<int32_t>{tokenizer->end_of_text()}, sampling, mesh.device(),
                          [&](int32_t id) { stream.token(id); });
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  stream.end();
  if (session.rank() == 0) {
    // Standard error, so that standard output is the text alone.
    std::cerr << "[" << info.path.string() << ", step " << info.state.step << ": " << prompt.size()
              << " + " << ids.size() << " tokens in " << fixed(seconds, 2) << " s]\n";
  }
}

}  // namespace

int run_generate(const GenerateCommand& command, int argc, char** argv) {
  comm::MpiSession session(&argc, &argv);
  return run_job(session, [&] {
    generate(session, command);
    return ExitCode::done;
  });
}

}  // namespace tptrain::apps
