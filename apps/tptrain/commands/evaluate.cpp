// tptrain evaluate: loss and perplexity of a model on text; by itself or under mpirun, tp x dp.
// Writes nothing that stays: the tokens are kept in a temporary directory of each host.
#include <ATen/Parallel.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "base/background.h"
#include "base/error.h"
#include "base/host.h"
#include "base/text.h"
#include "chat_template/chat_template.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "commands/commands.h"
#include "commands/device_option.h"
#include "data/sequential_batches.h"
#include "data/token_store.h"
#include "device/device_facts.h"
#include "inference/evaluation.h"
#include "inference/model_source.h"
#include "job.h"
#include "model/decoder.h"
#include "parameters/parameter_store.h"
#include "tool_display.h"
#include "tool_session.h"

namespace tptrain::apps {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Longer windows predict better and cost more; the model's own limit may be far beyond.
constexpr int64_t kUsualSeqLength = 1024;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (fs::temp_directory_path() / "tptrain-evaluate-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw DataError(problem(cat("mkdtemp failed: ", std::generic_category().message(errno)))
                          .at(name)
                          .remedy("Set TMPDIR to a directory that can be written."));
    }
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;  // it is a temporary directory, and there is nobody left to tell
    fs::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// The tokens of the text, made once on each host: no directory is known to be shared.
class HostTokens {
 public:
  HostTokens(comm::MpiSession& session, const data::Corpus& corpus,
             const tokenizer::Tokenizer& tokenizer) {
    comm::agree(session, [&] {
      if (session.local_rank() != 0) return;
      directory_ = std::make_unique<TemporaryDirectory>();
      tokens_ = data::prepare_tokens(corpus, tokenizer, directory_->path(), "text");
      if (session.rank() != 0) return;
      for (const std::string& what : tokens_.notes) std::cerr << "note: " << what << "\n";
    });
    const Told own = {.made = session.local_rank() == 0, .host = host_name(), .tokens = tokens_};
    const std::vector<std::string> all = session.all_gather(to_wire(own));
    comm::agree(session, [&] { adopt(all); });
  }
  const data::PreparedTokens& tokens() const { return tokens_; }

 private:
  /// What a rank tells the others.
  struct Told {
    bool made;  // the tokens, and not only heard of them
    std::string host;
    data::PreparedTokens tokens;
  };
  static std::string to_wire(const Told& told) {
    return cat(told.made ? "+" : "-", told.host, "\n", data::to_wire(told.tokens));
  }
  static Told from_wire(const std::string& wire) {
    const size_t end = wire.find('\n');
    return {.made = wire.front() == '+',
            .host = wire.substr(1, end - 1),
            .tokens = data::prepared_from_wire(wire.substr(end + 1))};
  }

  void adopt(const std::vector<std::string>& all) {
    const Told first = from_wire(all.front());
    for (const std::string& wire : all) {
      const Told one = from_wire(wire);
      if (!one.made) continue;
      if (one.tokens.identity != first.tokens.identity) {
        throw DataError(problem(cat("host ", one.host, " reads other text than host ", first.host))
                            .at("--data")
                            .must("name the same files on every host"));
      }
      if (one.host == host_name()) tokens_ = one.tokens;
    }
  }

  std::unique_ptr<TemporaryDirectory> directory_;  // of the host's first rank
  data::PreparedTokens tokens_;
};

comm::MeshShape mesh_shape(const model::DecoderConfig& config, int64_t tp_size, int ranks) {
  if (!model::check_tp_size(config, tp_size).empty()) {
    throw ConfigError(problem(cat("--tp-size is ", tp_size))
                          .must("be a tp size that divides the model")
                          .remedy(cat("tp sizes that work for this model: ",
                                      join(model::working_tp_sizes(config)), ".")));
  }
  if (ranks % tp_size != 0) {
    throw ConfigError(problem(cat("--tp-size is ", tp_size, ", and there are ", ranks, " ranks"))
                          .must("divide their number")
                          .remedy(cat("Start a multiple of ", tp_size, " ranks (mpirun -n).")));
  }
  return {.dp_size = static_cast<int>(ranks / tp_size), .tp_size = static_cast<int>(tp_size)};
}

int64_t seq_length_of(const EvaluateCommand& command, const model::DecoderConfig& config) {
  if (command.seq_length) {
    const std::vector<Problem> problems =
        model::check_seq_length(config, *command.seq_length, "--seq-length");
    if (!problems.empty()) throw ConfigError(problems);
    return *command.seq_length;
  }
  int64_t length = kUsualSeqLength;
  if (config.max_position_embeddings > 0) length = std::min(length, config.max_position_embeddings);
  if (config.sliding_window > 0) length = std::min(length, config.sliding_window);
  return length;
}

data::Corpus corpus_of(const EvaluateCommand& command, const inference::OpenedModel& opened) {
  data::Corpus corpus{
      .format = config::meaning<config::DataFormat>(command.format),
      .names = data::RowNames(command.columns, command.text_key, command.roles),
      .special_as_text = command.special_as_text,
      .vocab_size = opened.config.vocab_size,
      .key = "--data",
      .chat = {.train_on = config::meaning<config::TrainOn>(command.train_on).value()},
      .chat_template = [path = opened.tokenizer_path, file = command.chat_template] {
        return std::make_shared<const chat_template::ChatTemplate>(
            file.empty() ? chat_template::ChatTemplate::from_tokenizer(path)
                         : chat_template::ChatTemplate::from_file(file, path));
      }};
  for (const std::string& path : command.data) corpus.sources.push_back({.path = path});
  return corpus;
}

/// A tokenizer that the user chose for a model, and that cannot be its own. (The model's own may
/// have an id or two beyond the table: a text that gives one is refused.)
void check_vocabulary(const EvaluateCommand& command, const inference::OpenedModel& opened) {
  const int64_t ids = opened.tokenizer->vocab_size();
  if (command.tokenizer.empty() || ids <= opened.config.vocab_size) return;
  throw ConfigError(problem(cat("the tokenizer has ", ids, " ids, and the model's vocab_size is ",
                                opened.config.vocab_size))
                        .at("--tokenizer")
                        .must("have no more ids than the model")
                        .remedy("Leave --tokenizer out to use the model's own."));
}

data::SequentialBatches::Options batch_options(const EvaluateCommand& command, int64_t seq_length,
                                               int dp_size) {
  return {.seq_length = seq_length,
          .micro_batch_size = command.micro_batch_size,
          .dp_size = dp_size,
          .packing = config::meaning<config::Packing>(command.packing).value(),
          .document_mask = command.document_mask ? data::DocumentMask::on : data::DocumentMask::off,
          // Not by the batches of all ranks: then other layouts would see another text.
          .max_windows = command.max_batches * command.micro_batch_size};
}

/// An evaluation, and what it was of.
struct Measurement {
  std::string model;
  const data::PreparedTokens& tokens;
  inference::Evaluation result;
  int64_t seq_length;
  std::string dtype;
  bool whole_text;
  comm::MeshShape shape;
  double seconds;
};

void report(const EvaluateCommand& command, const Measurement& m) {
  const double per_second = static_cast<double>(m.result.target_tokens) / m.seconds;
  if (command.json) {
    std::cout << nlohmann::ordered_json{{"model", m.model},
                                        {"loss", m.result.loss},
                                        {"perplexity", m.result.perplexity()},
                                        {"target_tokens", m.result.target_tokens},
                                        {"tokens", m.tokens.tokens},
                                        {"documents", m.tokens.documents},
                                        {"whole_text", m.whole_text},
                                        {"seq_length", m.seq_length},
                                        {"packing", command.packing},
                                        {"document_mask", command.document_mask},
                                        {"dtype", m.dtype},
                                        {"tp_size", m.shape.tp_size},
                                        {"dp_size", m.shape.dp_size},
                                        {"seconds", m.seconds},
                                        {"tokens_per_second", per_second}}
                     .dump()
              << "\n";
    return;
  }
  std::cout << "model       " << m.model << "\n"
            << "loss        " << fixed(m.result.loss, 6) << " nats a token\n"
            << "perplexity  " << fixed(m.result.perplexity(), 4) << "\n"
            << "tokens      " << with_thousands(m.result.target_tokens) << " predicted"
            << (m.whole_text ? "" : " (stopped by --max-batches)") << ", of "
            << with_thousands(m.tokens.tokens) << " in " << with_thousands(m.tokens.documents)
            << (m.tokens.documents == 1 ? " document" : " documents") << "; windows of "
            << m.seq_length << ", packing " << command.packing
            << (command.document_mask ? ", documents apart" : "") << "\n"
            << "time        " << fixed(m.seconds, 2) << " s, "
            << with_thousands(static_cast<int64_t>(per_second)) << " tokens/s on tp "
            << m.shape.tp_size << " x dp " << m.shape.dp_size << ", " << m.dtype << "\n";
}

void evaluate(comm::MpiSession& session, const EvaluateCommand& command) {
  std::optional<ToolDisplay> display;
  if (session.rank() == 0) display.emplace();
  ProgressBoard& board = *session.board();
  board.enter("opening the model");
  const inference::OpenedModel opened =
      inference::open_model(session, {.checkpoint = command.from.checkpoint,
                                      .model = command.from.model,
                                      .adapter = command.from.adapter,
                                      .base = command.from.base,
                                      .tokenizer = command.tokenizer});
  for (const std::string& line : opened.not_used) std::cerr << "not used: " << line << "\n";
  for (const std::string& line : opened.notes) std::cerr << "note: " << line << "\n";
  comm::MeshShape shape;
  comm::DeviceType device = comm::DeviceType::cpu;
  int64_t seq_length = 0;
  comm::agree(session, [&] {
    shape = mesh_shape(opened.config, command.tp_size, session.size());
    seq_length = seq_length_of(command, opened.config);
    check_vocabulary(command, opened);
    device = device_type(command.device);
  });
  board.enter("tokenizing the text");
  const HostTokens text(session, corpus_of(command, opened), *opened.tokenizer);
  std::unique_ptr<data::SequentialBatches> batches;
  comm::agree(session, [&] {
    batches = std::make_unique<data::SequentialBatches>(
        text.tokens(), batch_options(command, seq_length, shape.dp_size));
  });

  board.enter("setting up the device mesh");
  comm::DeviceMesh mesh(session, shape, device);
  at::set_num_threads(std::max(1, usable_cores() / session.local_size()));
  model::Decoder decoder(opened.config, mesh.tp());
  const std::string dtype = dtype_on(command.dtype, device);
  parameters::ParameterStore store(
      parameters::whole_layout(decoder.blocks()),
      {.device = mesh.device(), .dtype = dtype == "bf16" ? at::kBFloat16 : at::kFloat});
  board.enter("reading the weights");
  comm::agree(session, [&] { parameters::load_parameters(store.values(), *opened.parameters); });
  board.enter("evaluation");
  const Clock::time_point begin = Clock::now();
  const inference::Evaluation result = inference::evaluate(decoder, *batches, mesh, session);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  if (session.rank() == 0) {
    report(command, {.model = opened.description,
                     .tokens = text.tokens(),
                     .result = result,
                     .seq_length = seq_length,
                     .dtype = dtype,
                     .whole_text = batches->whole_text(),
                     .shape = shape,
                     .seconds = seconds});
  }
}

}  // namespace

int run_evaluate(const EvaluateCommand& command, int argc, char** argv) {
  ToolSession tool(&argc, &argv, command.hang_timeout_s);
  return run_job(tool.session(), [&] {
    evaluate(tool.session(), command);
    return ExitCode::done;
  });
}

}  // namespace tptrain::apps
