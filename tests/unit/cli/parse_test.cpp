// The command line: what each form means, and the message for every wrong one.
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "cli.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using namespace tptrain::apps;

Command parse(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"tptrain"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  return parse_cli(static_cast<int>(argv.size()), argv.data());
}

template <typename T>
T parsed(const std::vector<std::string>& arguments) {
  const Command command = parse(arguments);
  REQUIRE(std::holds_alternative<T>(command));
  return std::get<T>(command);
}

std::string refusal(const std::vector<std::string>& arguments) {
  try {
    parse(arguments);
  } catch (const ConfigError& e) {
    CHECK(e.code() == ExitCode::config);
    return e.what();
  }
  FAIL("accepted");
  return "";
}

void check_contains(const std::string& text, const std::string& part) {
  INFO(text);
  INFO("lacks: " << part);
  CHECK(text.find(part) != std::string::npos);
}

using Strings = std::vector<std::string>;

TEST_CASE("launch takes a run file, and what of the starts the user decides") {
  const auto plain =
      parsed<LaunchCommand>({"launch", "--config", "run.yaml", "--train.max_steps=3"});
  CHECK_FALSE(plain.ranks.has_value());
  CHECK(plain.max_restarts == 3);
  CHECK_FALSE(plain.min_ranks.has_value());
  CHECK(plain.sets == Strings{"train.max_steps=3"});
  const auto full = parsed<LaunchCommand>({"launch", "-n", "8", "--hosts", "a:4,b:4", "--min-ranks",
                                           "4", "--max-restarts", "0", "--agent", "my-ssh",
                                           "--mpirun", "/opt/mpirun", "--config", "run.yaml"});
  CHECK(full.ranks == 8);
  CHECK(full.hosts == "a:4,b:4");
  CHECK(full.min_ranks == 4);
  CHECK(full.max_restarts == 0);
  CHECK(full.agent == "my-ssh");
  CHECK(full.mpirun == "/opt/mpirun");
  check_contains(refusal({"launch", "-n", "4"}), "--config is missing");
  check_contains(refusal({"launch", "-n", "0", "--config", "a"}), "-n is below 1");
  check_contains(refusal({"launch", "-n", "x", "--config", "a"}), "is not an integer");
  check_contains(refusal({"launch", "--max-restarts", "-1", "--config", "a"}),
                 "--max-restarts is -1");
  check_contains(refusal({"launch", "--agent", "a", "--config", "a"}), "come with --hosts");
}

TEST_CASE("train is the default verb") {
  for (const Strings& verb : {Strings{}, Strings{"train"}}) {
    Strings arguments = verb;
    for (const char* more : {"--config", "run.yaml", "--set", "data.train=[a,b]", "--set=run_dir=r",
                             "--set", "optimizer.learning_rate=-1"}) {
      arguments.push_back(more);
    }
    const auto command = parsed<TrainCommand>(arguments);
    CHECK(command.config == "run.yaml");
    CHECK(command.sets == Strings{"data.train=[a,b]", "run_dir=r", "optimizer.learning_rate=-1"});
  }
  CHECK(parsed<TrainCommand>({"--set", "a.b=1", "--config=run.yaml"}).sets == Strings{"a.b=1"});
}

TEST_CASE("plan") {
  const auto command =
      parsed<PlanCommand>({"plan", "--config", "run.yaml", "--tp-size", "4", "--set", "a=1"});
  CHECK(command.config == "run.yaml");
  CHECK(command.tp_size == std::optional<int64_t>(4));
  CHECK(!command.dp_size);
  CHECK(command.sets == Strings{"a=1"});
  CHECK(parsed<PlanCommand>({"plan", "--model", "m", "--dp-size=2"}).model == "m");
  check_contains(refusal({"plan"}),
                 "config error: tptrain plan: neither --config nor --model is "
                 "given: it must be exactly one of them.\n");
  check_contains(refusal({"plan", "--config", "a", "--model", "b"}),
                 "--config and --model are both given: it must be exactly one of them");
  check_contains(
      refusal({"plan", "--model", "b", "--set", "a=1"}),
      "--set is given with --model: it must go with --config, whose values it overrides");
  CHECK(parsed<PlanCommand>({"plan", "--model", "m", "--gpu-memory", "79.5"}).gpu_memory_gib ==
        std::optional<double>(79.5));
  CHECK(parsed<PlanCommand>({"plan", "--model", "m", "--device", "cuda"}).device == "cuda");
  check_contains(refusal({"plan", "--model", "b", "--device", "tpu"}),
                 "--device is tpu: it must be cpu or cuda");
  check_contains(refusal({"plan", "--model", "b", "--gpu-memory", "0"}),
                 "--gpu-memory is 0: it must be above 0");
  check_contains(refusal({"plan", "--model", "b", "--gpu-memory", "80", "--device", "cpu"}),
                 "--gpu-memory is given with --device cpu: it must go with GPUs");
  check_contains(refusal({"plan", "--model", "b", "--tp-size", "0"}),
                 "--tp-size is 0: it must be at least 1");
  check_contains(refusal({"plan", "--model", "b", "--dp-size=-2"}),
                 "--dp-size is -2: it must be at least 1");
  check_contains(refusal({"plan", "--model", "b", "--tp-size", "two"}),
                 "tptrain plan: --tp-size: \"two\" is not an integer");
  check_contains(refusal({"plan", "--model", "b", "--tp-size", "010"}),
                 "--tp-size: \"010\" is not an integer");
}

TEST_CASE("generate") {
  const auto command = parsed<GenerateCommand>(
      {"generate", "--checkpoint", "runs/a", "--prompt", "[Once, upon] a=b", "--max-new-tokens",
       "5", "--temperature", "0.8", "--top-k", "40", "--top-p", "0.9", "--seed",
       "18446744073709551615", "--device", "cpu"});
  CHECK(command.from.checkpoint == "runs/a");
  CHECK(command.prompt == "[Once, upon] a=b");
  CHECK(command.max_new_tokens == 5);
  CHECK(command.temperature == 0.8);
  CHECK(command.top_k == 40);
  CHECK(command.top_p == 0.9);
  CHECK(command.seed == 18446744073709551615u);
  CHECK(command.device == "cpu");
  const auto defaults = parsed<GenerateCommand>({"generate", "--checkpoint", "c", "--prompt=-- x"});
  CHECK(defaults.prompt == "-- x");
  CHECK(defaults.max_new_tokens == 200);
  CHECK(defaults.temperature == 0.0);
  CHECK(defaults.device == "auto");
  CHECK(!defaults.chat);
  const auto chat =
      parsed<GenerateCommand>({"generate", "--model", "m", "--tokenizer", "t", "--chat", "--system",
                               "Be brief.", "--prompt", "Hello"});
  CHECK(chat.from.model == "m");
  CHECK(chat.tokenizer == "t");
  CHECK(chat.chat);
  CHECK(chat.system == "Be brief.");
  check_contains(refusal({"generate", "--checkpoint", "c", "--model", "m", "--prompt", "p"}),
                 "--checkpoint and --model are both given: it must be exactly one of them");
  check_contains(refusal({"generate", "--model", "m", "--prompt", "p", "--system", "s"}),
                 "--system is given without --chat: it must go with --chat");
}

TEST_CASE("generate: everything wrong is named at once") {
  const std::string message =
      refusal({"generate", "--prompt", "", "--max-new-tokens", "0", "--temperature=-1",
               "--top-k=-1", "--top-p", "1.5", "--device", "tpu"});
  for (const char* part :
       {"tptrain generate: none of --checkpoint, --model and --adapter is given: "
        "it must be exactly one of them",
        "--prompt is missing or empty: it must be the text to continue",
        "--max-new-tokens is 0: it must be at least 1",
        "--temperature is -1: it must be a number of at least 0",
        "--top-k is -1: it must be at least 0",
        "--top-p is 1.5: it must be greater than 0 and at most 1",
        "--device is tpu: it must be one of auto, cpu, cuda",
        "tptrain generate --help shows the options."}) {
    check_contains(message, part);
  }
  const Strings good = {"generate", "--checkpoint", "c", "--prompt", "p"};
  for (const char* option : {"--temperature=nan", "--temperature=inf", "--top-p=0", "--top-p=nan",
                             "--seed=-1", "--max-new-tokens=x"}) {
    Strings arguments = good;
    arguments.push_back(option);
    const std::string name(option, std::string(option).find('='));
    check_contains(refusal(arguments), name);
  }
}

TEST_CASE("numbers of another type are refused as what they are") {
  const Strings good = {"generate", "--checkpoint", "c", "--prompt", "p"};
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--seed=-1", "--seed: \"-1\" is not an integer of at least 0"},
      {"--max-new-tokens=2.5", "--max-new-tokens: \"2.5\" is not an integer"},
      {"--top-k=1e3", "--top-k: \"1e3\" is not an integer"},
      {"--temperature=warm", "--temperature: \"warm\" is not a number"},
  };
  for (const auto& [option, message] : cases) {
    Strings arguments = good;
    arguments.push_back(option);
    CHECK(refusal(arguments) == "config error: tptrain generate: " + message +
                                    ".\n  tptrain generate --help shows the options.");
  }
}

TEST_CASE("evaluate") {
  const auto command = parsed<EvaluateCommand>({"evaluate",
                                                "--model",
                                                "m",
                                                "--tokenizer",
                                                "t",
                                                "--data",
                                                "a.txt",
                                                "b c.txt",
                                                "--data",
                                                "d.jsonl",
                                                "--format",
                                                "jsonl",
                                                "--column",
                                                "messages=dialog",
                                                "--column",
                                                "role=from=x",
                                                "--role",
                                                "assistant=bot",
                                                "--role",
                                                "assistant=helper",
                                                "--packing",
                                                "none",
                                                "--special-as-text",
                                                "--seq-length",
                                                "64",
                                                "--micro-batch-size",
                                                "2",
                                                "--max-batches",
                                                "3",
                                                "--tp-size",
                                                "4",
                                                "--dtype",
                                                "bf16",
                                                "--device",
                                                "cpu",
                                                "--json"});
  CHECK(command.from.checkpoint.empty());
  CHECK(command.from.model == "m");
  CHECK(command.tokenizer == "t");
  CHECK(command.data == Strings{"a.txt", "b c.txt", "d.jsonl"});
  CHECK(command.format == "jsonl");
  CHECK(command.columns.size() == 2);
  CHECK(command.columns.at("messages") == "dialog");
  CHECK(command.columns.at("role") == "from=x");
  CHECK(command.roles.size() == 1);
  CHECK(command.roles.at("assistant") == Strings{"bot", "helper"});
  CHECK(command.packing == "none");
  CHECK(command.special_as_text);
  CHECK(command.seq_length == 64);
  CHECK(command.micro_batch_size == 2);
  CHECK(command.max_batches == 3);
  CHECK(command.tp_size == 4);
  CHECK(command.dtype == "bf16");
  CHECK(command.device == "cpu");
  CHECK(command.json);
  const auto defaults = parsed<EvaluateCommand>({"evaluate", "--checkpoint=c", "--data=a.txt"});
  CHECK(defaults.format.empty());
  CHECK(defaults.packing == "stream");
  CHECK(!defaults.seq_length);
  CHECK(defaults.tp_size == 1);
  CHECK(defaults.dtype == "auto");
}

TEST_CASE("evaluate: a column is one that is known, with a name") {
  for (const char* column : {"mesages=a", "messages=", "messages", "=a"}) {
    check_contains(
        refusal({"evaluate", "--model", "m", "--data", "a", "--column", column}),
        std::string("--column is ") + column + ": it must be NAME=KEY with a name of text, ");
  }
}

TEST_CASE("evaluate: a role is one that templates know, with a word") {
  for (const char* role : {"bot=assistant", "user=", "user", "=a"}) {
    check_contains(refusal({"evaluate", "--model", "m", "--data", "a", "--role", role}),
                   std::string("--role is ") + role +
                       ": it must be NAME=WORD with a name of system, developer, user, ");
  }
}

TEST_CASE("evaluate: everything wrong is named at once") {
  const std::string message =
      refusal({"evaluate", "--format", "csv", "--packing", "best", "--dtype", "fp16", "--device",
               "tpu", "--seq-length=0", "--micro-batch-size=0", "--max-batches=-1", "--tp-size=0",
               "--hang-timeout=-1"});
  for (const char* part :
       {"none of --checkpoint, --model and --adapter is given: it must be exactly one of them",
        "--data is missing: it must name at least one file, directory or glob",
        "--format is csv: it must be one of text, jsonl",
        "--packing is best: it must be one of stream, best_fit, none",
        "--dtype is fp16: it must be one of fp32, bf16",
        "--device is tpu: it must be one of auto, cpu, cuda",
        "--seq-length is 0: it must be at least 1",
        "--micro-batch-size is 0: it must be at least 1",
        "--max-batches is -1: it must be at least 0", "--tp-size is 0: it must be at least 1",
        "--hang-timeout is -1: it must be at least 0"}) {
    check_contains(message, part);
  }
  check_contains(refusal({"evaluate", "--checkpoint", "c", "--model", "m", "--data", "a"}),
                 "--checkpoint and --model are both given: it must be exactly one of them");
}

TEST_CASE("export takes a checkpoint or a model, and where to write") {
  const auto command = parsed<ExportCommand>({"export", "--checkpoint", "runs/a", "--out", "x"});
  CHECK(command.from.checkpoint == "runs/a");
  CHECK(command.out == "x");
  CHECK(command.max_shard_size == "5GB");
  CHECK(command.dtype == "as-stored");
  CHECK_FALSE(command.overwrite);
  const auto all =
      parsed<ExportCommand>({"export", "--checkpoint=c", "--out=x", "--max-shard-size=500MB",
                             "--dtype=bf16", "--model-files=m", "--overwrite"});
  CHECK(all.max_shard_size == "500MB");
  CHECK(all.dtype == "bf16");
  CHECK(all.model_files == "m");
  CHECK(all.overwrite);
  CHECK(parsed<ExportCommand>({"export", "--model", "m", "--out", "x"}).from.model == "m");
  const auto merged =
      parsed<ExportCommand>({"export", "--adapter", "a", "--base", "b", "--merge", "--out", "x"});
  CHECK(merged.from.adapter == "a");
  CHECK(merged.from.base == "b");
  CHECK(merged.merge);

  check_contains(
      refusal({"export", "--out", "x"}),
      "none of --checkpoint, --model and --adapter is given: it must be exactly one of them");
  check_contains(refusal({"export", "--out", "x", "--model", "a", "--checkpoint", "b"}),
                 "--checkpoint and --model are both given");
  check_contains(refusal({"export", "--adapter", "a", "--out", "x"}),
                 "--adapter is given without --merge: it must be merged into its base");
  check_contains(refusal({"export", "--model", "a", "--out", "x", "--merge"}),
                 "--merge is given with --model: it must go with --adapter, or the checkpoint of");
  check_contains(refusal({"export", "--model", "a", "--out", "x", "--base", "b"}),
                 "--base is given with --model: it must go with an adapter or its checkpoint");
  check_contains(refusal({"export", "--checkpoint", "a"}),
                 "--out is missing: it must name the directory to write");
  check_contains(refusal({"export", "--model", "a", "--out", "x", "--model-files", "f"}),
                 "--model-files is given with --model: it must go with --checkpoint");
  check_contains(refusal({"export", "--model", "a", "--out", "x", "--dtype", "fp8"}),
                 "--dtype is fp8: it must be one of as-stored, f32, bf16, f16");
  check_contains(refusal({"export", "--model", "a", "--out", "x", "--overwite"}),
                 "Did you mean --overwrite?");
}

TEST_CASE("tokenize") {
  const auto command =
      parsed<TokenizeCommand>({"tokenize", "--tokenizer", "dir", "--chat", "--generation-prompt",
                               "--chat-variables", "{}", "--threads", "3"});
  CHECK(command.tokenizer == "dir");
  CHECK(command.chat);
  CHECK(command.generation_prompt);
  CHECK(command.chat_variables == "{}");
  CHECK(command.threads == 3);
  CHECK(parsed<TokenizeCommand>({"tokenize", "--tokenizer", "bytes"}).threads >= 1);
  check_contains(refusal({"tokenize", "--tokenizer", "bytes", "--decode", "--chat"}),
                 "--decode and --chat are both given");
}

TEST_CASE("inspect, verify, schema") {
  CHECK(parsed<InspectCommand>({"inspect", "runs/a"}).path == "runs/a");
  CHECK(!parsed<InspectCommand>({"inspect", "runs/a"}).json);
  CHECK(parsed<InspectCommand>({"inspect", "runs/a", "--json"}).json);
  CHECK(parsed<VerifyCommand>({"verify", "runs/a"}).path == "runs/a");
  const auto report = parsed<ReportCommand>({"report", "runs/a", "runs/b", "--out", "x.html"});
  CHECK(report.runs == Strings{"runs/a", "runs/b"});
  CHECK(report.out == "x.html");
  CHECK(parsed<DoctorCommand>({"doctor"}).run_dir.empty());
  CHECK(parsed<DoctorCommand>({"doctor", "runs/a"}).run_dir == "runs/a");
  const auto fetch =
      parsed<FetchCommand>({"fetch", "Qwen/Qwen2.5-0.5B", "--include", "*.json", "--include",
                            "*.safetensors", "--revision", "v1", "--out", "m", "--overwrite"});
  CHECK(fetch.name == "Qwen/Qwen2.5-0.5B");
  CHECK(fetch.include == Strings{"*.json", "*.safetensors"});
  CHECK(fetch.revision == "v1");
  CHECK(fetch.out == "m");
  CHECK(fetch.overwrite);
  check_contains(refusal({"fetch"}), "NAME is missing: it must name a repository of the hub");
  check_contains(refusal({"generate", "--model", "hf://Qwen/Qwen2.5-0.5B", "--prompt", "a"}),
                 "hf://Qwen/Qwen2.5-0.5B: it must be a folder: fetch it first, with tptrain fetch "
                 "Qwen/Qwen2.5-0.5B");
  const auto watch = parsed<WatchCommand>({"watch", "runs", "--once", "--every", "0.5"});
  CHECK(watch.runs == Strings{"runs"});
  CHECK(watch.once);
  CHECK(watch.every_s == 0.5);
  check_contains(refusal({"report"}),
                 "tptrain report: RUN_DIR is missing: it must name a run directory");
  check_contains(refusal({"watch", "a", "--every", "0"}), "be between 0.1 and 3600 seconds");
  CHECK(!parsed<SchemaCommand>({"schema"}).markdown);
  CHECK(parsed<SchemaCommand>({"schema", "--markdown"}).markdown);
  CHECK(refusal({"verify"}) ==
        "config error: tptrain verify: PATH is missing: it must name a checkpoint, a directory of "
        "checkpoints, or a run directory.\n  tptrain verify --help shows the options.");
  check_contains(refusal({"inspect"}), "tptrain inspect: PATH is missing");
  CHECK(refusal({"verify", "a", "b"}) ==
        "config error: tptrain verify: \"b\" is one argument too many.\n"
        "  tptrain verify --help shows the options.");
}

TEST_CASE("prepare") {
  const auto command = parsed<PrepareCommand>(
      {"prepare", "--config", "run.yaml", "--set", "a=1", "--show", "3", "--megatron", "out"});
  CHECK(command.config == "run.yaml");
  CHECK(command.sets == Strings{"a=1"});
  CHECK(command.show == 3);
  CHECK(command.megatron == "out");
  CHECK(parsed<PrepareCommand>({"prepare", "--config", "r"}).show == 0);
  check_contains(refusal({"prepare"}), "--config is missing");
  check_contains(refusal({"prepare", "--config", "r", "--show", "-1"}), "--show is -1");
}

TEST_CASE("completion knows every verb and its options") {
  for (const char* shell : {"bash", "zsh"}) {
    const std::string script = parsed<PrintCommand>({"completion", shell}).text;
    check_contains(script,
                   "train launch plan generate evaluate prepare export inspect verify report watch "
                   "doctor fetch");
    check_contains(script, "    train) options='--config --set --help' ;;");
    check_contains(script, "    report) options='--out --title --help' ;;");
  }
  check_contains(refusal({"completion"}), "the shell is missing: it must be bash or zsh");
  check_contains(refusal({"completion", "fish"}), "\"fish\": it must be bash or zsh");
}

TEST_CASE("an unknown verb is refused with the nearest") {
  CHECK(refusal({"verfy", "x"}) ==
        "config error: tptrain: \"verfy\" is no known verb: it must be one of train, launch, plan, "
        "generate, evaluate, prepare, export, inspect, verify, report, watch, doctor, fetch, "
        "tokenize, schema, "
        "completion.\n  Did you "
        "mean tptrain "
        "verify?");
  check_contains(refusal({"deploy"}), "\"deploy\" is no known verb");
  check_contains(refusal({"deploy"}), "tptrain --help shows what each does.");
  check_contains(refusal({"configs/a.yaml"}), "To train: tptrain --config configs/a.yaml");
}

TEST_CASE("a key of the run file may be written as an option") {
  const auto command =
      parsed<TrainCommand>({"--train.max_steps=3", "--config", "run.yaml", "--set", "run_dir=--a.b",
                            "--optimizer.betas", "[0.9, 0.95]", "--scheduler.min_lr", "-1"});
  CHECK(command.config == "run.yaml");
  CHECK(command.sets == Strings{"train.max_steps=3", "run_dir=--a.b", "optimizer.betas=[0.9, 0.95]",
                                "scheduler.min_lr=-1"});
  CHECK(parsed<PlanCommand>({"plan", "--config", "r", "--parallel.tp_size=2"}).sets ==
        Strings{"parallel.tp_size=2"});
  for (const Strings& arguments :
       {Strings{"--config", "r", "--train.max_steps"}, {"--train.max_steps", "--config", "r"}}) {
    CHECK(refusal(arguments) ==
          "config error: tptrain train: --train.max_steps has no value: it must be written as "
          "--train.max_steps=VALUE.");
  }
  // A verb without a run file has no such keys.
  check_contains(refusal({"verify", "--train.max_steps=3", "p"}),
                 "--train.max_steps is no known option");
}

TEST_CASE("an option of another trainer is told the key that it is here") {
  CHECK(refusal({"--config", "r", "--learning_rate", "1e-3"}) ==
        "config error: tptrain train: --learning_rate is no known option.\n"
        "  Did you mean optimizer.learning_rate?\n"
        "  A value of the run file is given as --set section.key=value.");
  check_contains(refusal({"--config", "r", "--per-device-train-batch-size=4"}),
                 "Its name here is train.micro_batch_size. It counts sequences per dp rank.");
  check_contains(refusal({"train", "run.yaml"}),
                 "\"run.yaml\" is one argument too many.\n  Write --config run.yaml.");
}

/// Of the list in --help, so that a new verb is held to what is asked of all.
Strings verbs_of_help() {
  const std::string help = parsed<PrintCommand>({"--help"}).text;
  const size_t begin = help.find("\nVerbs");
  std::istringstream lines(help.substr(begin, help.find("\nExamples") - begin));
  Strings verbs;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("  ") && line[2] != ' ')
      verbs.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  return verbs;
}

TEST_CASE("help fits 80 columns and says no less") {
  std::vector<Strings> all = {{"--help"}};
  const Strings verbs = verbs_of_help();
  CHECK(verbs.size() == 16);
  for (const std::string& verb : verbs) {
    all.push_back({verb, "--help"});
    CHECK(parsed<PrintCommand>({"help", verb}).text == parsed<PrintCommand>({verb, "--help"}).text);
  }
  for (const Strings& arguments : all) {
    const std::string text = parsed<PrintCommand>(arguments).text;
    size_t begin = 0;
    while (begin < text.size()) {
      const size_t end = text.find('\n', begin);
      INFO(text.substr(begin, end - begin));
      CHECK(end - begin <= 80);
      begin = end + 1;
    }
  }
  check_contains(parsed<PrintCommand>({"plan", "--help"}).text,
                 "  --gpu-memory GIB            Memory of a GPU: also says which\n"
                 "                              train.micro_batch_size fits (implies --device\n"
                 "                              cuda)\n");
  check_contains(parsed<PrintCommand>({"generate", "--help"}).text,
                 "  mpirun -n 2 tptrain generate --checkpoint runs/a/checkpoints/step-00000100 \\\n"
                 "      --prompt \"Once\" --temperature 0.8 --top-p 0.95 --seed 7\n");
  CHECK(parsed<PrintCommand>({"help"}).text == parsed<PrintCommand>({"--help"}).text);
  CHECK(parsed<PrintCommand>({"version"}).text == parsed<PrintCommand>({"--version"}).text);
  check_contains(refusal({"help", "trian"}), "Did you mean tptrain train?");
}

TEST_CASE("an unknown option is refused with the nearest") {
  CHECK(refusal({"--confg", "run.yaml"}) ==
        "config error: tptrain train: --confg is no known option.\n  Did you mean --config?");
  CHECK(refusal({"--config", "run.yaml", "--frobnicate=2"}) ==
        "config error: tptrain train: --frobnicate is no known option.\n"
        "  Its options are --config, --set.");
  check_contains(refusal({"generate", "--topk", "3"}), "Did you mean --top-k?");
}

TEST_CASE("what is missing is named") {
  CHECK(
      refusal({}) ==
      "config error: tptrain: there is nothing to do: it must be given a run file, --config FILE, "
      "or a verb.\n  To train: mpirun -n 4 tptrain --config run.yaml (configs/ has files to start "
      "from). "
      "tptrain --help shows the verbs and examples.");
  CHECK(refusal({"train"}) ==
        "config error: tptrain train: --config is missing: it must name the run file.\n"
        "  tptrain train --help shows the options.");
  check_contains(refusal({"--set", "a.b=1"}), "--config is missing");
  check_contains(refusal({"--config"}), "--config");
  check_contains(refusal({"--config", "a", "--config", "b"}), "--config");
  check_contains(refusal({"--config", "a", "--set"}), "--set");
  CHECK(refusal({"--config", "a", "b"}) ==
        "config error: tptrain train: \"b\" is one argument too many.\n"
        "  tptrain train --help shows the options.");
}

TEST_CASE("help and version say what a user needs") {
  for (const char* flag : {"--help", "-h"}) {
    const std::string text = parsed<PrintCommand>({flag}).text;
    for (const char* part :
         {"mpirun -n", "--config", "--set", "plan", "generate", "evaluate", "inspect", "verify",
          "tokenize", "schema", "Examples:", "Exit codes:", "75"}) {
      check_contains(text, part);
    }
  }
  check_contains(parsed<PrintCommand>({"--version"}).text, "tptrain " TPTRAIN_TEST_VERSION " (CPU");
  const Strings options = {"--config", "--model", "--tp-size", "--dp-size", "--set", "Examples:"};
  for (const std::string& part : options) {
    check_contains(parsed<PrintCommand>({"plan", "--help"}).text, part);
  }
  check_contains(parsed<PrintCommand>({"verify", "--help"}).text, "PATH");
  CHECK(parsed<PrintCommand>({"verify", "--help"}).text.back() == '\n');
  check_contains(parsed<PrintCommand>({"train", "--help"}).text, "section.key=value");
  check_contains(parsed<PrintCommand>({"generate", "--help"}).text, "--max-new-tokens");
}

}  // namespace
}  // namespace tptrain::testing
