#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_plan(const std::vector<std::string>& arguments) {
  VerbParser parser("plan",
                    "Shows how a model is cut over the ranks, and a forecast of memory and "
                    "communication. Needs no GPU and no mpirun.",
                    "  tptrain plan --config run.yaml --tp-size 4 --dp-size 2\n"
                    "  tptrain plan --model models/Qwen2.5-0.5B --tp-size 2\n"
                    "  tptrain plan --config run.yaml --gpu-memory 139");
  PlanCommand command;
  parser.option("--config", command.config, "FILE", "The run file; or:");
  parser.option("--model", command.model, "DIR", "A directory with a config.json");
  parser.option("--tp-size", command.tp_size, "N",
                "Tensor-parallel size, instead of the run file's");
  parser.option("--dp-size", command.dp_size, "N", "Data-parallel size, instead of the run file's");
  parser.option("--device", command.device, "cpu|cuda",
                "For which kernels memory is counted; default: the run file's train.device, `auto` "
                "as cpu");
  parser.option("--gpu-memory", command.gpu_memory_gib, "GIB",
                "Memory of a GPU: also says which train.micro_batch_size fits (implies --device "
                "cuda)");
  parser.list("--set", command.sets, "section.key=value", kSetDoc);
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.config.empty() || !command.model.empty(),
                 "neither --config nor --model is given", "be exactly one of them");
  parser.require(command.config.empty() || command.model.empty(),
                 "--config and --model are both given", "be exactly one of them");
  parser.require(command.sets.empty() || command.model.empty(), "--set is given with --model",
                 "go with --config, whose values it overrides");
  for (const auto& [name, size] :
       {std::pair("--tp-size", command.tp_size), std::pair("--dp-size", command.dp_size)}) {
    parser.require(size.value_or(1) >= 1, cat(name, " is ", size.value_or(1)), "be at least 1");
  }
  parser.require(command.device.empty() || command.device == "cpu" || command.device == "cuda",
                 cat("--device is ", command.device), "be cpu or cuda");
  parser.require(command.gpu_memory_gib.value_or(1) > 0,
                 cat("--gpu-memory is ", command.gpu_memory_gib.value_or(1)), "be above 0");
  parser.require(!command.gpu_memory_gib || command.device != "cpu",
                 "--gpu-memory is given with --device cpu", "go with GPUs");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
