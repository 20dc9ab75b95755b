// Names and words that people bring from other trainers, and paths as a shell would read them.
#include "config/foreign_names.h"

#include <cstdlib>
#include <map>
#include <string>

#include "base/text.h"
#include "config_test.h"

namespace tptrain::testing {
namespace {

std::string remedy_of(const std::string& more) {
  const std::string message = refusal(kMinimal + more);
  const size_t line = message.find("\n  ");
  return line == std::string::npos ? "" : message.substr(line + 3);
}

TEST_CASE("each foreign name means a key or section that there is, or says why there is none") {
  CHECK(config::foreign_names().size() >= 300);
  for (const auto& [name, meaning] : config::foreign_names()) {
    INFO(name);
    CHECK(config::find_key(name) == nullptr);
    CHECK((meaning.path.empty() || config::find_key(meaning.path) != nullptr ||
           config::find_section(meaning.path) != nullptr));
    CHECK((!meaning.path.empty() || !meaning.note.empty()));
    CHECK((meaning.note.empty() || meaning.note.back() == '.'));
  }
}

// name as written, with its section -> the key that its hint names
TEST_CASE(
    "a file of the Hugging Face Trainer, axolotl, LLaMA-Factory, torchtitan, DeepSpeed or "
    "Megatron-LM") {
  const std::map<std::string, std::string> names = {
      // Hugging Face
      {"output_dir", "run_dir"},
      {"model_name_or_path", "model.path"},
      {"per_device_train_batch_size", "train.micro_batch_size"},
      {"gradient_accumulation_steps", "train.grad_accum_steps"},
      {"num_train_epochs", "train.epochs"},
      {"max_steps", "train.max_steps"},
      {"learning_rate", "optimizer.learning_rate"},
      {"lr_scheduler_type", "scheduler.type"},
      {"warmup_ratio", "scheduler.warmup_steps"},
      {"warmup_steps", "scheduler.warmup_steps"},
      {"adam_beta1", "optimizer.betas"},
      {"adam_epsilon", "optimizer.eps"},
      {"max_grad_norm", "optimizer.max_grad_norm"},
      {"bf16", "train.dtype"},
      {"fp16", "train.dtype"},
      {"tf32", "train.dtype"},
      {"gradient_checkpointing", "parallel.recompute"},
      {"save_steps", "checkpoint.save_steps"},
      {"save_total_limit", "checkpoint.keep"},
      {"save_strategy", "checkpoint.save_steps"},
      {"resume_from_checkpoint", "checkpoint.resume"},
      {"eval_steps", "eval.every_steps"},
      {"eval_strategy", "eval.every_steps"},
      {"logging_steps", "logging.every_steps"},
      {"run_name", "run_dir"},
      {"deepspeed", "parallel.zero_stage"},
      {"fsdp", "parallel.zero_stage"},
      {"tp_size", "parallel.tp_size"},
      {"packing", "data.packing"},
      {"dataset_text_field", "data.text_key"},
      {"field_messages", "data.columns"},
      {"message_property_mappings", "data.columns"},
      {"field_instruction", "data.columns"},
      {"columns", "data.columns"},
      {"optim", "optimizer.type"},
      {"seed", "train.seed"},
      {"early_stopping_patience", "eval.patience"},
      {"enable_tensorboard", "logging.tensorboard"},
      // axolotl
      {"base_model", "model.path"},
      {"micro_batch_size", "train.micro_batch_size"},
      {"sequence_len", "train.seq_length"},
      {"num_epochs", "train.epochs"},
      {"lr_scheduler", "scheduler"},
      {"tensor_parallel_size", "parallel.tp_size"},
      {"sample_packing", "data.packing"},
      {"datasets", "data.train"},
      {"val_set_size", "data.eval_share"},
      {"saves_per_epoch", "checkpoint.save_steps"},
      // torchtitan
      {"job.dump_folder", "run_dir"},
      {"training.steps", "train.max_steps"},
      {"training.seq_len", "train.seq_length"},
      {"training.local_batch_size", "train.micro_batch_size"},
      {"train.local_batch_size", "train.micro_batch_size"},
      {"training.global_batch_size", "train.global_batch_size"},
      {"training.max_norm", "optimizer.max_grad_norm"},
      {"training.mixed_precision_param", "train.dtype"},
      {"optimizer.lr", "optimizer.learning_rate"},
      {"optimizer.name", "optimizer.type"},
      {"optimizer.beta1", "optimizer.betas"},
      {"lr_scheduler.decay_type", "scheduler.type"},
      {"activation_checkpoint.mode", "parallel.recompute"},
      {"checkpoint.interval", "checkpoint.save_steps"},
      {"checkpoint.every_steps", "checkpoint.save_steps"},
      {"checkpoint.keep_latest_k", "checkpoint.keep"},
      {"checkpoint.load_step", "checkpoint.resume"},
      {"checkpoint.initial_load_path", "model.path"},
      {"validation.freq", "eval.every_steps"},
      {"metrics.log_freq", "logging.every_steps"},
      {"parallelism.tensor_parallel_degree", "parallel.tp_size"},
      {"parallelism.data_parallel_shard_degree", "parallel.zero_stage"},
      // DeepSpeed
      {"train_micro_batch_size_per_gpu", "train.micro_batch_size"},
      {"train_batch_size", "train.global_batch_size"},
      {"gradient_clipping", "optimizer.max_grad_norm"},
      {"zero_optimization.stage", "parallel.zero_stage"},
      {"optimizer.params.lr", "optimizer.learning_rate"},
      {"bf16.enabled", "train.dtype"},
      {"tensor_parallel.autotp_size", "parallel.tp_size"},
      {"steps_per_print", "logging.every_steps"},
      // LLaMA-Factory
      {"dataset", "data.train"},
      {"template", "data.chat_template"},
      {"cutoff_len", "train.seq_length"},
      {"max_samples", "data.train"},
      {"interleave_probs", "data.train"},
      {"mask_history", "data.train_on"},
      {"train_on_prompt", "data.train_on"},
      {"neat_packing", "data.packing"},
      {"finetuning_type", "adapter"},
      {"lora_rank", "adapter.rank"},
      {"lora_target", "adapter.targets"},
      {"adapter_name_or_path", "model.adapter"},
      {"quantization_bit", "adapter.base_dtype"},
      {"freeze_trainable_layers", "model.freeze"},
      {"val_size", "data.eval_share"},
      // Megatron-LM
      {"tensor-model-parallel-size", "parallel.tp_size"},
      {"train-iters", "train.max_steps"},
      {"lr-warmup-iters", "scheduler.warmup_steps"},
      {"lr-decay-style", "scheduler.type"},
      {"clip-grad", "optimizer.max_grad_norm"},
      {"save-interval", "checkpoint.save_steps"},
      {"recompute-granularity", "parallel.recompute"},
      {"num-layers", "model.architecture.num_hidden_layers"},
      {"ffn-hidden-size", "model.architecture.intermediate_size"},
      {"train.norm_epsilon", "model.architecture.rms_norm_eps"},
  };
  for (const auto& [name, ours] : names) {
    INFO(name);
    const std::string message = refusal(kMinimal, {name + "=1"});
    INFO(message);
    const bool told = message.find(cat("Its name here is ", ours, ".")) != std::string::npos ||
                      message.find(cat("Did you mean ", ours, "?")) != std::string::npos;
    CHECK(told);
    CHECK(message.find("has the keys") == std::string::npos);
  }
}

TEST_CASE("what is not built is said to be so, and nothing else is guessed") {
  for (const std::string name :
       {"pp_size", "parallel.pp_size", "pipeline_model_parallel_size", "cp_size",
        "parallel.cp_size", "context_parallel_degree", "ep_size", "parallel.sp_size", "use_dora",
        "load_in_8bit", "report_to", "wandb_project", "push_to_hub", "label_smoothing_factor",
        "profiling.enable_profiling"}) {
    INFO(name);
    const std::string message = refusal(kMinimal, {name + "=1"});
    INFO(message);
    CHECK(message.find("ot built") != std::string::npos);
    CHECK(message.find("Did you mean") == std::string::npos);
  }
}

TEST_CASE("a section of another trainer is told, with each name below it that means something") {
  CHECK(refusal(kMinimal + "training:\n  steps: 100\n  frobnicate: 1\n  seq_len: 64\n") ==
        "config error: run.yaml:5:1: training is no known key.\n"
        "  Its name here is train.\n"
        "config error: run.yaml:6:3: training.steps is no known key.\n"
        "  Its name here is train.max_steps.\n"
        "config error: run.yaml:8:3: training.seq_len is no known key.\n"
        "  Its name here is train.seq_length.");
}

TEST_CASE("a value in place of a section is told how to stand in it") {
  CHECK(remedy_of("optimizer: adamw_8bit\n") == "Write `optimizer: {type: ...}`.");
  CHECK(remedy_of("scheduler: cosine\n") == "Write `scheduler: {type: ...}`.");
}

TEST_CASE("a name that means one key or another is told by what it is given") {
  const std::string saves = "Its name here is checkpoint.save_epochs. 1 saves as each pass ends.";
  const std::string evaluates =
      "Its name here is eval.every_epochs. 1 evaluates as each pass ends.";
  for (const std::string given :
       {"save: epoch\n", "save_strategy: epoch\n", "save_strategy: \"Epoch\"\n",
        "checkpoint: epoch\n", "checkpoint: {save: epoch}\n"}) {
    INFO(given);
    CHECK(remedy_of(given) == saves);
  }
  for (const std::string given :
       {"eval: epoch\n", "eval_strategy: epoch\n", "evaluation_strategy: epoch\n"}) {
    INFO(given);
    CHECK(remedy_of(given) == evaluates);
  }
  CHECK(refusal(kMinimal, {"save=epoch"}).ends_with(saves));
  CHECK(refusal(kMinimal, {"eval=epoch"}).ends_with(evaluates));
  CHECK(remedy_of("save: runs/a\n").starts_with("Its name here is run_dir."));
  CHECK(remedy_of("save_strategy: steps\n").starts_with("Its name here is checkpoint.save_steps."));
  CHECK(remedy_of("save_strategy: \"no\"\n") ==
        "Its name here is checkpoint.save_steps. 0 saves at the end alone.");
  CHECK(remedy_of("eval_strategy: no\n") ==
        "Its name here is data.eval. Without it there is no evaluation.");
}

TEST_CASE("a key in another section, written wrongly, is found too") {
  CHECK(remedy_of("train: {lerning_rate: 1}\n").find("train is given twice") != 0);
  CHECK(refusal(kMinimal, {"train.lerning_rate=1"}) ==
        "config error: --set train.lerning_rate=1: train.lerning_rate is no known key.\n"
        "  Did you mean optimizer.learning_rate?");
}

TEST_CASE("words of other trainers") {
  const std::map<std::string, std::string> words = {
      {"train.dtype=bfloat16", "Its name here is bf16."},
      {"train.dtype=float32", "Its name here is fp32."},
      {"train.dtype=float16", "fp16 is not built: bf16 takes its place."},
      {"optimizer.moments_dtype=bfloat16", "Its name here is bf16."},
      {"parallel.recompute=true", "Its name here is full."},
      {"parallel.recompute=off", "Its name here is none."},
      {"optimizer.type=adamw_torch_fused", "Its name here is adamw."},
      {"scheduler.type=constant_with_warmup",
       "Its name here is constant. scheduler.warmup_steps gives the warm-up."},
      {"scheduler.type=cosine_with_restarts", "That course is not built."},
      {"scheduler.type=cos", "Did you mean cosine?"},
      {"train.cuda_graphs=true", "Its name here is on."},
      {"parallel.tp_overlap=true", "Its name here is auto."},
      {"parallel.tp_overlap=false", "Its name here is off."},
      {"data.packing=true", "Its name here is best_fit."},
      {"data.format=alpaca", "Its name here is jsonl. Which kind a row is its keys say."},
      {"data.eval_share=0.05", "Write 5%."},
      {"data.train=[{path: a, subset: 0.005}]", "Write 0.5%."},
      {"data.train=[{path: a, format: alpaca}]",
       "Its name here is jsonl. Which kind a row is its keys say."},
      {"data.train=[{path: a, type: alpaca}]",
       "What a row is its own keys say, or columns: docs/data.md lists them."},
      {"data.train=[{path: a, field_messages: dialog}]",
       "Their names here are columns: {messages: dialog, role: from, content: value}, our name and "
       "then the file's."},
      {"data.eval={wiki: [{path: a, split: test}]}",
       "path names the files: a glob of those of the split."},
      {"data.train=[{path: a, probability: 0.5}]", "Its name here is weight."},
  };
  for (const auto& [set, hint] : words) {
    const std::string message = refusal(kMinimal, {set});
    INFO(message);
    CHECK(message.substr(message.find("\n  ") + 3) == hint);
  }
}

class Home {
 public:
  explicit Home(const char* path) : before_(std::getenv("HOME") ? std::getenv("HOME") : "") {
    setenv("HOME", path, 1);
  }
  ~Home() { setenv("HOME", before_.c_str(), 1); }

 private:
  std::string before_;
};

TEST_CASE("~ at the start of a path is the home directory, of every path of a run file") {
  const Home home("/home/ada");
  const config::RunConfig run = parse(
      "run_dir: ~/runs/a\nmodel: {path: \"~/models/m\"}\n"
      "data: {train: [~/a.txt, {path: '~/b/*.txt'}, c~/d], eval: [~/e], tokenizer: ~/tok}\n"
      "train: {max_steps: 1}\ncheckpoint: {resume: ~/runs/b/checkpoints/step-00000005}\n");
  CHECK(run.run_dir == "/home/ada/runs/a");
  CHECK(run.model.path == "/home/ada/models/m");
  CHECK(run.data.train ==
        std::vector<config::DataSource>{{"/home/ada/a.txt"}, {"/home/ada/b/*.txt"}, {"c~/d"}});
  CHECK(run.data.eval == std::vector<config::DataSource>{{"/home/ada/e"}});
  CHECK(run.data.tokenizer == "/home/ada/tok");
  CHECK(run.checkpoint.resume == "/home/ada/runs/b/checkpoints/step-00000005");
  CHECK(parse(kMinimal, {"run_dir=~/x"}).run_dir == "/home/ada/x");
  CHECK(parse(kMinimal, {"run_dir=\"~\""}).run_dir == "/home/ada");
  const Home root("/");
  CHECK(parse(kMinimal, {"run_dir=~/x"}).run_dir == "/x");
  CHECK(parse(kMinimal, {"run_dir=\"~\""}).run_dir == "/");
}

TEST_CASE("other homes, variables and a lone ~ in a path are refused with the reason") {
  CHECK(refusal(kMinimal, {"run_dir=~ada/x"}) ==
        "config error: --set run_dir=~ada/x: run_dir is ~ada/x: it must begin with ~/ for the home "
        "directory: those of other users are not looked up.\n"
        "  Write that directory out; for a name that begins with ~, write ./~ada/x.");
  CHECK(refusal(kMinimal, {"run_dir=~"}) ==
        "config error: --set run_dir=~: run_dir is null: it must have a value.\n"
        "  Give one, as in `run_dir: runs/my-run`.");
  for (const std::string set :
       {"run_dir=${HOME}/x", "run_dir=$SCRATCH/x", "model.path=$A", "data.train=[a, $B/c]",
        "data.eval=[{path: $B/c}]", "data.tokenizer=$T", "checkpoint.resume=$C"}) {
    const std::string message = refusal(kMinimal, {set});
    INFO(message);
    CHECK(message.find(
              ": it must be without $: no shell reads a run file, so that variables stay as "
              "they are.\n  Write the path out (~ at its start is the home directory), or "
              "let the shell give it, as in --set run_dir=\"$SCRATCH/run\".") != std::string::npos);
  }
  for (const std::string set :
       {"model.path=hf://Qwen/Qwen2.5-0.5B", "data.tokenizer=hf://Qwen/Qwen2.5-0.5B"}) {
    const std::string message = refusal(kMinimal, {set});
    INFO(message);
    CHECK(
        message.find(": it must be a path: a run fetches nothing by itself.\n  Fetch it first, and "
                     "write the folder that it names: tptrain fetch Qwen/Qwen2.5-0.5B") !=
        std::string::npos);
  }
  // A name pattern of tensors is no path.
  CHECK(parse(kMinimal, {"optimizer.groups=[{match: a$b}]"}).optimizer.groups[0].match == "a$b");
}

}  // namespace
}  // namespace tptrain::testing
