#include "training_job.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/text.h"

namespace tptrain::testing {
namespace {

constexpr const char* kRunFile = R"(run_dir: run
model:
  architecture: {model_type: llama, vocab_size: 272, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
parallel: {tp_size: 2, dp_size: 2, zero_stage: 1}
data:
  train: [text/train.txt]
  eval: [text/eval.txt]
train:
  seq_length: 32
  micro_batch_size: 1
  global_batch_size: 4
  max_steps: 8
  device: cpu
optimizer: {learning_rate: 3e-3}
scheduler: {type: cosine, warmup_steps: 2}
checkpoint: {save_steps: 3, keep: 0}
eval: {every_steps: 4}
)";

}  // namespace

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

void write_text(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
}

Job::Job() {
  std::string train;
  for (int i = 0; i < 120; ++i)
    train += cat("Sentence ", i, " says that ", i * i, " is the square of ", i, ".\n");
  write_text(directory() / "text/train.txt", train);
  write_text(directory() / "text/eval.txt", train.substr(0, 1000));
  write_text(config(), kRunFile);
}

void Job::edit(const std::string& from, const std::string& to) {
  std::string text = read_text(config());
  const size_t at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("the run file has no '" + from + "'");
  write_text(config(), text.replace(at, from.size(), to));
}

std::vector<std::string> Job::command(int ranks, const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv = {TPTRAIN_MPIRUN, "--oversubscribe", "-n", std::to_string(ranks),
                                   TPTRAIN_BINARY};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return argv;
}

ProcessResult Job::run(int ranks, const std::vector<std::string>& more) const {
  std::vector<std::string> arguments = {"--config", "run.yaml"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_process(command(ranks, arguments), directory());
}

ProcessResult Job::tool(const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv = {TPTRAIN_BINARY};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_process(argv, directory());
}

std::vector<std::string> metric_lines(const fs::path& run_dir) {
  std::vector<std::string> lines;
  std::istringstream text(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (!json.contains("loss")) continue;
    lines.push_back(cat(json.at("step"), " ", json.at("loss"), " ", json.at("grad_norm"), " ",
                        json.at("lr"), " ", json.at("tokens_seen")));
  }
  return lines;
}

std::map<std::string, std::string> shards_of(const fs::path& checkpoint) {
  std::map<std::string, std::string> shards;
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    if (entry.path().extension() == ".safetensors")
      shards[entry.path().filename().string()] = read_text(entry.path());
  }
  return shards;
}

std::vector<int> processes_with(const std::string& text) {
  std::vector<int> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    try {
      if (read_text(entry.path() / "cmdline").find(text) != std::string::npos)
        found.push_back(std::stoi(name));
    } catch (const std::exception&) {
      continue;  // it has ended meanwhile
    }
  }
  return found;
}

std::map<int, int> ranks_with(const std::string& text) {
  const std::string variable = "OMPI_COMM_WORLD_RANK=";
  std::map<int, int> ranks;
  for (const int pid : processes_with(text)) {
    try {
      std::istringstream environment(read_text(cat("/proc/", pid, "/environ")));
      for (std::string entry; std::getline(environment, entry, '\0');)
        if (entry.starts_with(variable)) ranks[std::stoi(entry.substr(variable.size()))] = pid;
    } catch (const std::exception&) {
      continue;  // it has ended meanwhile
    }
  }
  return ranks;
}

bool hears(int pid, int signal) {
  std::istringstream status;
  try {
    status.str(read_text(cat("/proc/", pid, "/status")));
  } catch (const std::exception&) {
    return false;  // it has ended
  }
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("SigBlk:") && !line.starts_with("SigCgt:")) continue;
    if (std::stoull(line.substr(7), nullptr, 16) >> (signal - 1) & 1) return true;
  }
  return false;
}

bool all_gone(const std::string& text) {
  const auto begin = std::chrono::steady_clock::now();
  while (!processes_with(text).empty()) {
    if (std::chrono::steady_clock::now() - begin > within(std::chrono::seconds(5))) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

bool wait_until(const Process& process, const std::function<bool()>& holds) {
  const auto begin = std::chrono::steady_clock::now();
  while (!holds()) {
    // What was done last counts: it is looked at once more.
    if (process.has_ended()) return holds();
    if (std::chrono::steady_clock::now() - begin > kPatience) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

bool wait_for(const Process& process, const fs::path& path) {
  return wait_until(process, [&] { return fs::exists(path); });
}

bool wait_for_step(const Process& process, const fs::path& run_dir, int64_t step) {
  const fs::path path = run_dir / "metrics.jsonl";
  const std::string row = cat("\"step\":", step, ",");
  return wait_until(
      process, [&] { return fs::exists(path) && read_text(path).find(row) != std::string::npos; });
}

std::map<int, int> wait_for_ranks(const Process& process, const std::string& marker, size_t count) {
  std::map<int, int> ranks;
  wait_until(process, [&] { return (ranks = ranks_with(marker)).size() == count; });
  return ranks;
}

int hang_timeout_s(int least) {
  static const double start_s = [] {
    const ProcessResult result = Job().run(4, {"--set", "train.max_steps=1"});
    if (result.exit_code != 0) throw std::runtime_error("a job of one step: " + result.output);
    return result.seconds;
  }();
  return std::max(least, static_cast<int>(std::ceil(2 * start_s)));
}

fs::path checkpoint_at(const fs::path& run_dir, int64_t step) {
  std::string digits = std::to_string(step);
  return run_dir / "checkpoints" / ("step-" + std::string(8 - digits.size(), '0') + digits);
}

}  // namespace tptrain::testing
