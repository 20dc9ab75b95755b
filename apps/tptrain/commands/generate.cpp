// tptrain generate: continues a text from a checkpoint; by itself or under mpirun, where the ranks
// are the tp axis. Not a server: one prompt, then it ends.
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/background.h"
#include "base/error.h"
#include "base/text.h"
#include "chat_template/chat_template.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "commands/commands.h"
#include "commands/device_option.h"
#include "data/chat_rows.h"
#include "device/device_facts.h"
#include "inference/generator.h"
#include "inference/model_source.h"
#include "inference/utf8_stream.h"
#include "job.h"
#include "model/decoder.h"
#include "parameters/parameter_store.h"
#include "tokenizer/tokenizer.h"
#include "tool_display.h"
#include "tool_session.h"

namespace tptrain::apps {
namespace {

using Clock = std::chrono::steady_clock;

void check_ranks(const model::DecoderConfig& config, int ranks) {
  if (model::check_tp_size(config, ranks).empty()) return;
  throw ConfigError(
      problem(cat("there are ", ranks, " ranks, and generate cuts the model over all of them"))
          .must("be a tp size that divides the model")
          .remedy(cat("tp sizes that work for this model: ", join(model::working_tp_sizes(config)),
                      ". Start that many ranks.")));
}

/// A base model that was trained on conversations ends its answers as their template does, whatever
/// its generation_config.json names.
void stop_at_end_of_turn(const chat_template::ChatTemplate& chat, inference::OpenedModel& model) {
  try {
    const int32_t end = data::end_of_turn(chat, *model.tokenizer);
    if (end >= 0 && end < model.config.vocab_size) model.stop_ids.push_back(end);
  } catch (const DataError& error) {
    model.notes.push_back(
        cat("where an answer ends cannot be told from the chat template, and "
            "eos_token_id alone ends it: ",
            error.what()));
  }
}

/// The command's prompt, plain or as the user's turn of a conversation.
std::vector<int32_t> prompt_ids(const GenerateCommand& command, inference::OpenedModel& model) {
  if (!command.chat) return model.tokenizer->encode(command.prompt, {.add_special = true});
  const chat_template::ChatTemplate chat =
      chat_template::ChatTemplate::from_tokenizer(model.tokenizer_path);
  stop_at_end_of_turn(chat, model);
  std::vector<chat_template::ChatMessage> messages;
  if (!command.system.empty()) messages.push_back({.role = "system", .content = command.system});
  messages.push_back({.role = "user", .content = command.prompt});
  // The template writes begin-of-text and the turns' marks as text.
  return model.tokenizer->encode(chat.render(messages, {.add_generation_prompt = true}));
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

  std::optional<ToolDisplay> display;
  if (session.rank() == 0) display.emplace();
  ProgressBoard& board = *session.board();
  board.enter("opening the model");
  inference::OpenedModel model =
      inference::open_model(session, {.checkpoint = command.from.checkpoint,
                                      .model = command.from.model,
                                      .adapter = command.from.adapter,
                                      .base = command.from.base,
                                      .tokenizer = command.tokenizer});
  comm::DeviceType device = comm::DeviceType::cpu;
  std::vector<int32_t> prompt;
  comm::agree(session, [&] {
    check_ranks(model.config, session.size());
    device = device_type(command.device);
    prompt = prompt_ids(command, model);
    inference::check_prompt(prompt, model.config.vocab_size);
    const auto tokens = static_cast<int64_t>(prompt.size()) + command.max_new_tokens;
    const std::vector<Problem> problems =
        model::check_seq_length(model.config, tokens, "the prompt with --max-new-tokens");
    if (!problems.empty()) throw ConfigError(problems);
  });
  if (session.rank() == 0) {
    for (const std::string& line : model.not_used) std::cerr << "not used: " << line << "\n";
    for (const std::string& line : model.notes) std::cerr << "note: " << line << "\n";
  }
  sampling.vocab_limit = model.tokenizer->vocab_size();

  board.enter("setting up the device mesh");
  comm::DeviceMesh mesh(session, {.dp_size = 1, .tp_size = session.size()}, device);
  at::set_num_threads(std::max(1, usable_cores() / session.local_size()));
  model::Decoder decoder(model.config, mesh.tp());
  const std::string dtype = dtype_on(command.dtype, device);
  parameters::ParameterStore store(
      parameters::whole_layout(decoder.blocks()),
      {.device = mesh.device(), .dtype = dtype == "bf16" ? at::kBFloat16 : at::kFloat});
  board.enter("reading the weights");
  comm::agree(session, [&] { parameters::load_parameters(store.values(), *model.parameters); });
  board.enter("generation");

  TextStream stream(*model.tokenizer, prompt, /*prints=*/session.rank() == 0);
  if (!command.chat) stream.text(command.prompt);
  const Clock::time_point begin = Clock::now();
  const std::vector<int32_t> ids =
      inference::generate(decoder, prompt, model.stop_ids, sampling, mesh.device(),
                          [&](int32_t id) { stream.token(id); });
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  stream.end();
  if (session.rank() == 0) {
    // Standard error, so that standard output is the text alone.
    std::cerr << "[" << model.description << ": " << prompt.size() << " + " << ids.size()
              << " tokens in " << fixed(seconds, 2) << " s, " << dtype << "]\n";
  }
}

}  // namespace

int run_generate(const GenerateCommand& command, int argc, char** argv) {
  ToolSession tool(&argc, &argv, command.hang_timeout_s);
  return run_job(tool.session(), [&] {
    generate(tool.session(), command);
    return ExitCode::done;
  });
}

}  // namespace tptrain::apps
