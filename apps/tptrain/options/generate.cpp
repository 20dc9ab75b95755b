#include <cmath>

#include "options/model_options.h"
#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_generate(const std::vector<std::string>& arguments) {
  VerbParser parser("generate", "Continues a text with a trained model.",
                    "  tptrain generate --checkpoint runs/a --prompt \"Once upon a time\"\n"
                    "  mpirun -n 2 tptrain generate --checkpoint runs/a/checkpoints/step-00000100 "
                    "--prompt \"Once\" --temperature 0.8 --top-p 0.95 --seed 7\n"
                    "  tptrain generate --adapter my-adapter --base models/Qwen2.5-0.5B --chat "
                    "--prompt \"Hello\"");
  GenerateCommand command;
  model_options(parser, command.from);
  parser.option("--tokenizer", command.tokenizer, "PATH", "A tokenizer instead of the model's own");
  parser.option("--prompt", command.prompt, "TEXT", "The text to continue");
  parser.flag("--chat", command.chat,
              "The prompt is what a user says: it is put into the model's chat template, and only "
              "the answer is printed");
  parser.option("--system", command.system, "TEXT", "The system message before it; with --chat");
  parser.option("--max-new-tokens", command.max_new_tokens, "N", "Most tokens to add (200)");
  parser.option("--temperature", command.temperature, "X",
                "0 (the default): always the likeliest token; else sample at this temperature");
  parser.option("--top-k", command.top_k, "K",
                "Sample from the K likeliest tokens; 0 (the default): all");
  parser.option("--top-p", command.top_p, "P",
                "Sample from the likeliest tokens that together have probability P (1)");
  parser.option("--seed", command.seed, "N", "Seed of the sampling (0)");
  parser.option("--dtype", command.dtype, "fp32|bf16",
                "Weights and activations (bf16 on GPUs, fp32 on CPUs)");
  parser.option("--device", command.device, "auto|cpu|cuda", "Where to compute (auto)");
  hang_timeout_option(parser, command.hang_timeout_s);
  if (auto help = parser.parse(arguments)) return *help;
  require_one_model(parser, command.from);
  parser.require(command.chat || command.system.empty(), "--system is given without --chat",
                 "go with --chat");
  parser.require(!command.prompt.empty(), "--prompt is missing or empty",
                 "be the text to continue");
  parser.require(command.max_new_tokens >= 1, cat("--max-new-tokens is ", command.max_new_tokens),
                 "be at least 1");
  parser.require(std::isfinite(command.temperature) && command.temperature >= 0,
                 cat("--temperature is ", command.temperature), "be a number of at least 0");
  parser.require(command.top_k >= 0, cat("--top-k is ", command.top_k), "be at least 0");
  parser.require(command.top_p > 0 && command.top_p <= 1, cat("--top-p is ", command.top_p),
                 "be greater than 0 and at most 1");
  const std::vector<std::string> dtypes = {"auto", "fp32", "bf16"};
  parser.require(std::find(dtypes.begin(), dtypes.end(), command.dtype) != dtypes.end(),
                 cat("--dtype is ", command.dtype), "be fp32 or bf16");
  const std::vector<std::string> devices = {"auto", "cpu", "cuda"};
  parser.require(std::find(devices.begin(), devices.end(), command.device) != devices.end(),
                 cat("--device is ", command.device), cat("be one of ", join(devices)));
  require_hang_timeout(parser, command.hang_timeout_s);
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
