#include "options/model_options.h"
#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_export(const std::vector<std::string>& arguments) {
  VerbParser parser(
      "export",
      "Writes a checkpoint as a Hugging Face model directory, which transformers and vLLM load "
      "(docs/huggingface.md); that of an adapter's training as a PEFT directory, or, with --merge, "
      "as a whole model (docs/lora.md). Needs no GPU and no mpirun.",
      "  tptrain export --checkpoint runs/a --out exported\n"
      "  tptrain export --checkpoint runs/a/checkpoints/step-00000100 --out exported-bf16 --dtype "
      "bf16 "
      "--max-shard-size 2GB\n"
      "  tptrain export --model models/Qwen2.5-0.5B --out resharded --max-shard-size 500MB\n"
      "  tptrain export --checkpoint runs/lora --out merged --merge");
  ExportCommand command;
  model_options(parser, command.from);
  parser.option("--out", command.out, "DIR", "The directory to write; made where it is missing");
  parser.option("--max-shard-size", command.max_shard_size, "SIZE",
                "Most bytes of tensors in one file, like 5GB (the default), 500MB, 4GiB");
  parser.option("--dtype", command.dtype, "as-stored|f32|bf16|f16",
                "Type of the weights; as-stored (the default): of --checkpoint the type that the "
                "model's config.json names, or f32; of --model each tensor's own");
  parser.option("--model-files", command.model_files, "DIR",
                "config.json and tokenizer files, instead of those the run kept");
  parser.flag("--merge", command.merge,
              "Adds the adapter to its base model and writes that, instead of the adapter alone");
  parser.flag("--overwrite", command.overwrite,
              "Replaces the files of an earlier export in --out, as a set");
  if (auto help = parser.parse(arguments)) return *help;
  require_one_model(parser, command.from);
  parser.require(!command.out.empty(), "--out is missing", "name the directory to write");
  parser.require(
      command.model_files.empty() || !command.from.checkpoint.empty(),
      cat("--model-files is given with ", command.from.model.empty() ? "--adapter" : "--model"),
      "go with --checkpoint: a Hugging Face directory has its own");
  parser.require(command.from.adapter.empty() || command.merge,
                 "--adapter is given without --merge", "be merged into its base to be exported");
  parser.require(command.from.model.empty() || !command.merge, "--merge is given with --model",
                 "go with --adapter, or the checkpoint of an adapter's run");
  const std::vector<std::string> dtypes = {"as-stored", "f32", "bf16", "f16"};
  parser.require(std::find(dtypes.begin(), dtypes.end(), command.dtype) != dtypes.end(),
                 cat("--dtype is ", command.dtype), cat("be one of ", join(dtypes)));
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
