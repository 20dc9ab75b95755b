// Every bad input a user can give to a training run: its exit code, its message, and that nothing
// is lost by it.
#include <signal.h>

#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

void check_refused(const ProcessResult& result, int exit_code,
                   const std::vector<std::string>& parts) {
  INFO(result.output);
  CHECK(result.exit_code == exit_code);
  CHECK_FALSE(result.timed_out);
  for (const std::string& part : parts) {
    INFO("expected in the message: " << part);
    CHECK(result.output.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("bad run files are refused with exit code 2", "[e2e]") {
  Job job;
  SECTION("missing file") {
    fs::remove(job.config());
    check_refused(job.run(), 2, {"config error: ", "run.yaml", "--config"});
  }
  SECTION("unknown key") {
    job.edit("tp_size: 2", "tp_sze: 2");
    check_refused(job.run(), 2,
                  {"config error: run.yaml:4:", "parallel.tp_sze", "parallel.tp_size"});
  }
  SECTION("wrong type") {
    job.edit("seq_length: 32", "seq_length: long");
    check_refused(job.run(), 2, {"config error: run.yaml:9:", "train.seq_length", "long"});
  }
  SECTION("all errors at once") {
    job.edit("tp_size: 2", "tp_sze: 2");
    job.edit("seq_length: 32", "seq_length: long");
    check_refused(job.run(), 2, {"parallel.tp_sze", "train.seq_length"});
  }
  SECTION("tp x dp is not the number of ranks") {
    check_refused(
        job.run(3), 2,
        {"parallel.tp_size 2 x parallel.dp_size 2 is 4, but the job has 3 ranks", "mpirun -n 4"});
  }
  SECTION("kv heads that the ranks can neither share out nor copy") {
    job.edit("num_attention_heads: 4", "num_attention_heads: 3");
    job.edit("num_key_value_heads: 2", "num_key_value_heads: 3, head_dim: 8");
    job.edit("tp_size: 2, dp_size: 2", "tp_size: 4, dp_size: 1");
    check_refused(job.run(), 2, {"num_key_value_heads is 3", "tp sizes that work", "1, 2, 3"});
  }
  SECTION("a parameter group that fits no tensor") {
    job.edit("learning_rate: 3e-3",
             "learning_rate: 3e-3, groups: [{match: '*.baias', weight_decay: 0}]");
    check_refused(job.run(), 2, {"*.baias"});
  }
  SECTION("a rank without a query head") {
    job.edit("num_attention_heads: 4, num_key_value_heads: 2",
             "num_attention_heads: 2, num_key_value_heads: 1, head_dim: 8");
    job.edit("tp_size: 2, dp_size: 2", "tp_size: 4, dp_size: 1");
    check_refused(job.run(), 2, {"num_attention_heads is 2", "tp sizes that work", "1, 2"});
  }
  SECTION("batch sizes that do not fit") {
    job.edit("global_batch_size: 4", "global_batch_size: 3");
    check_refused(job.run(), 2, {"train.global_batch_size is 3", "multiple of 2"});
  }
  SECTION("unwritable run_dir") {
    write_text(job.directory() / "file", "not a directory");
    check_refused(job.run(4, {"--set", "run_dir=file/run"}), 2,
                  {"config error: ", "file/run", "run_dir"});
  }
}

TEST_CASE("a wrong command line is refused once, not once a rank", "[e2e]") {
  const Job job;
  const ProcessResult result =
      run_process(job.command(3, {"--cofnig", "run.yaml"}), job.directory());
  check_refused(result, 2, {"--cofnig"});
  INFO(result.output);
  CHECK(result.output.find("--cofnig") == result.output.rfind("--cofnig"));
}

TEST_CASE("bad data is refused with exit code 3", "[e2e]") {
  Job job;
  SECTION("empty data") {
    write_text(job.directory() / "text/train.txt", "");
    check_refused(job.run(), 3, {"data error: ", "data.train"});
  }
  SECTION("no such file") {
    check_refused(job.run(4, {"--set", "data.train=[nowhere/*.txt]"}), 3,
                  {"data error: ", "nowhere/*.txt"});
    // Said in the log as well, where those who come later look.
    const std::string log = read_text(job.run_dir() / "log.txt");
    INFO(log);
    CHECK(log.find("ERROR: data error: [rank 0] data.train[0]: \"nowhere/*.txt\"") !=
          std::string::npos);
    const ProcessResult watched = job.tool({"watch", "run", "--once"});
    INFO(watched.output);
    CHECK(watched.output.find("failed") != std::string::npos);
    CHECK(watched.output.find("nowhere/*.txt") != std::string::npos);
    CHECK(watched.output.find("resolved_config") == std::string::npos);
  }
  SECTION("text shorter than one batch") {
    write_text(job.directory() / "text/train.txt", "only a few words");
    check_refused(job.run(), 3, {"data error: ", "global batch"});
  }
}

TEST_CASE("damaged and foreign checkpoints are refused, and the newest valid one serves", "[e2e]") {
  Job job;
  REQUIRE(job.run().exit_code == 0);
  job.edit("max_steps: 8", "max_steps: 10");
  const fs::path newest = checkpoint_at(job.run_dir(), 8);
  const fs::path shard = newest / "shard-00001-of-00004.safetensors";

  SECTION("a truncated shard") {
    fs::resize_file(shard, fs::file_size(shard) - 5);
    check_refused(job.tool({"verify", "run"}), 4, {"shard-00001-of-00004.safetensors"});
    check_refused(job.run(), 0, {"shard-00001-of-00004.safetensors", "resume: ", "step-00000006"});
  }
  SECTION("a flipped bit") {
    std::string bytes = read_text(shard);
    bytes[bytes.size() / 2] ^= 1;
    write_text(shard, bytes);
    check_refused(job.tool({"verify", "run/checkpoints/step-00000008"}), 4,
                  {"shard-00001-of-00004.safetensors", "SHA-256"});
    check_refused(job.run(), 0, {"SHA-256", "resume: ", "step-00000006"});
    CHECK(metric_lines(job.run_dir()).size() == 10);
  }
  SECTION("nothing valid is left") {
    for (const auto& entry : fs::directory_iterator(job.run_dir() / "checkpoints"))
      fs::resize_file(entry.path() / "manifest.json", 10);
    check_refused(job.run(), 4, {"checkpoint error: ", "checkpoints"});
  }
  SECTION("asked for a checkpoint that is not there") {
    check_refused(job.run(4, {"--set", "checkpoint.resume=run/checkpoints/step-00000099"}), 4,
                  {"checkpoint error: ", "step-00000099"});
  }
  SECTION("another model") {
    check_refused(job.run(4, {"--set", "model.architecture.hidden_size=64"}), 4,
                  {"checkpoint error: ", "another model"});
    CHECK(read_text(job.run_dir() / "log.txt").find("ERROR: checkpoint error: ") !=
          std::string::npos);
  }
  SECTION("other data") {
    write_text(job.directory() / "text/train.txt",
               read_text(job.directory() / "text/train.txt") + "One more line.\n");
    check_refused(job.run(), 4, {"checkpoint error: ", "data.train holds other text"});
  }
}

TEST_CASE("two runs in one run_dir: the second is refused, the first goes on", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 1000000");
  job.edit("save_steps: 3", "save_steps: 0");
  Process first(job.command(2, {"--config", "run.yaml", "--set", "parallel.tp_size=1"}),
                job.directory());
  REQUIRE(wait_for_step(first, job.run_dir(), 3));
  check_refused(job.run(), 2, {"config error: ", "in use"});
  first.signal(SIGUSR1);
  const ProcessResult result = first.wait();
  INFO(result.output);
  CHECK(result.exit_code == 75);  // it went on until it was asked to stop
}

}  // namespace tptrain::testing
