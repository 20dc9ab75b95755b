// tptrain evaluate on a trained checkpoint: the same numbers on every layout, those of the training
// itself, every token counted, and every refusal.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../train/training_job.h"
#include "base/text.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using Arguments = std::vector<std::string>;

Arguments evaluate(const Arguments& more) {
  Arguments arguments = {"evaluate", "--checkpoint", "run"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

nlohmann::json json_of(const ProcessResult& result) {
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return nlohmann::json::parse(result.standard_output);
}

void check_refused(const ProcessResult& result, int exit_code, const std::string& message) {
  INFO(result.output);
  INFO("expected: " << message);
  CHECK(result.exit_code == exit_code);
  CHECK(result.output.find(message) != std::string::npos);
}

// 992 bytes and the end of text: 31 whole windows of 32 targets, so that training, which leaves a
// part of a window out, sees all of it.
constexpr int kEvalBytes = 992;

/// Trained, with text/eval.txt of kEvalBytes and documents of 1 to 40 words in text/rows.jsonl.
const Job& trained() {
  static const Job job;
  static const ProcessResult result = [] {
    write_text(job.directory() / "text/eval.txt",
               read_text(job.directory() / "text/train.txt").substr(0, kEvalBytes));
    std::string rows;
    for (int i = 0; i < 23; ++i) {
      std::string text;
      for (int word = 0; word < 1 + i * 7 % 40; ++word) text += cat("Sentence ", word * i, " ");
      rows += nlohmann::json({{"text", text}}).dump() + "\n";
    }
    write_text(job.directory() / "text/rows.jsonl", rows);
    return job.run();
  }();
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return job;
}

nlohmann::json on_ranks(int ranks, const Arguments& more) {
  return json_of(run_process(trained().command(ranks, evaluate(more)), trained().directory()));
}

double last_eval_loss(const fs::path& run_dir) {
  std::ifstream file(run_dir / "metrics.jsonl");
  double loss = std::nan("");
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (json.contains("eval_loss")) loss = json["eval_loss"];
  }
  return loss;
}

}  // namespace

TEST_CASE("the loss is that of the training's own evaluation, and the same on every layout",
          "[e2e]") {
  const Job& job = trained();
  const Arguments text = {"--data", "text/eval.txt", "--seq-length", "32", "--json"};
  const nlohmann::json one = json_of(job.tool(evaluate(text)));
  CHECK(one["target_tokens"] == kEvalBytes);
  CHECK(one["tokens"] == kEvalBytes + 1);
  CHECK(one["documents"] == 1);
  CHECK(one["whole_text"] == true);
  const double loss = one["loss"];
  CHECK(one["perplexity"].get<double>() == Approx(std::exp(loss)).epsilon(1e-12));
  CHECK(last_eval_loss(job.run_dir()) == Approx(loss).epsilon(2e-6));

  // Rows with padding and documents across windows: a part of a batch is left over nearly always.
  for (const std::string packing : {"stream", "none"}) {
    const Arguments rows = {"--data",    "text/rows.jsonl", "--seq-length", "24",
                            "--packing", packing,           "--json"};
    const nlohmann::json reference = on_ranks(1, rows);
    CHECK(reference["target_tokens"].get<int64_t>() ==
          reference["tokens"].get<int64_t>() - reference["documents"].get<int64_t>());
    CHECK(reference["documents"] == 23);
    struct Layout {
      int ranks;
      Arguments more;
    };
    for (const Layout& layout : {Layout{1, {"--micro-batch-size", "7"}},
                                 Layout{2, {"--tp-size", "2", "--micro-batch-size", "3"}},
                                 Layout{2, {"--micro-batch-size", "5"}}, Layout{3, {}},
                                 Layout{4, {"--tp-size", "2", "--micro-batch-size", "2"}},
                                 Layout{4, {"--tp-size", "4"}}}) {
      Arguments more = rows;
      more.insert(more.end(), layout.more.begin(), layout.more.end());
      const nlohmann::json other = on_ranks(layout.ranks, more);
      INFO(packing << ", " << layout.ranks << " ranks, " << join(layout.more, " "));
      CHECK(other["target_tokens"] == reference["target_tokens"]);
      CHECK(other["loss"].get<double>() == Approx(reference["loss"].get<double>()).epsilon(2e-6));
    }
  }
}

TEST_CASE("documents that do not see each other have the loss that they have alone", "[e2e]") {
  const auto loss_of = [](int ranks, const Arguments& more) {
    Arguments all = {"--data", "text/rows.jsonl", "--seq-length", "256", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    const nlohmann::json result = on_ranks(ranks, all);
    CHECK(result["target_tokens"].get<int64_t>() ==
          result["tokens"].get<int64_t>() - result["documents"].get<int64_t>());
    return result["loss"].get<double>();
  };
  const double alone = loss_of(1, {"--packing", "none"});
  const Arguments packed = {"--packing", "best_fit", "--document-mask"};
  CHECK(loss_of(1, packed) == Approx(alone).epsilon(2e-6));
  CHECK(loss_of(4, {"--packing", "best_fit", "--document-mask", "--tp-size", "2"}) ==
        Approx(alone).epsilon(2e-6));
  // Without the mask they see those before them, and are predicted otherwise.
  CHECK(std::abs(loss_of(1, {"--packing", "best_fit"}) / alone - 1) > 1e-5);
  // A window's border cuts documents of a stream: what is left of one begins anew.
  const double stream = loss_of(1, {"--document-mask"});
  CHECK(loss_of(3, {"--document-mask", "--micro-batch-size", "2"}) == Approx(stream).epsilon(2e-6));
}

TEST_CASE("max-batches stops at the same text on every layout", "[e2e]") {
  const Arguments some = {"--data", "text/eval.txt", "--seq-length",       "32", "--max-batches",
                          "5",      "--json",        "--micro-batch-size", "2"};
  const nlohmann::json one = on_ranks(1, some);
  CHECK(one["target_tokens"] == 5 * 2 * 32);
  CHECK(one["whole_text"] == false);
  const nlohmann::json three = on_ranks(3, some);
  CHECK(three["target_tokens"] == one["target_tokens"]);
  CHECK(three["loss"].get<double>() == Approx(one["loss"].get<double>()).epsilon(2e-6));
}

TEST_CASE("labels decide what counts", "[e2e]") {
  const Job& job = trained();
  write_text(job.directory() / "text/labels.jsonl",
             "{\"input_ids\": [72, 101, 108, 108, 111], \"labels\": [-100, -100, 108, -100, 111]}\n"
             "{\"input_ids\": [72, 101], \"labels\": [72, -100]}\n");
  const Arguments data = {"--data", "text/labels.jsonl", "--packing", "none", "--json"};
  CHECK(json_of(job.tool(evaluate(data)))["target_tokens"] == 2);
  write_text(job.directory() / "text/no_labels.jsonl",
             "{\"input_ids\": [72, 101], \"labels\": [72, -100]}\n");
  check_refused(job.tool(evaluate({"--data", "text/no_labels.jsonl"})), 3,
                "data error: the text has not a single token to predict: it must have a document "
                "of two tokens, of which the second is labelled.\n"
                "  The first token of a document is not predicted, nor one of label -100.");
}

TEST_CASE("bf16 is near fp32; several files; the report in words; nothing stays behind", "[e2e]") {
  const Job& job = trained();
  const Arguments both = {"--data", "text/eval.txt", "text/rows.jsonl", "--json"};
  Arguments bf16 = both;
  bf16.insert(bf16.end(), {"--dtype", "bf16"});
  const nlohmann::json full = json_of(job.tool(evaluate(both)));
  CHECK(full["documents"] == 24);
  CHECK(full["seq_length"] == 1024);
  CHECK(json_of(job.tool(evaluate(bf16)))["loss"].get<double>() ==
        Approx(full["loss"].get<double>()).epsilon(2e-2));

  const fs::path temporary = job.directory() / "tmp";
  fs::create_directories(temporary);
  Arguments command = {"env", "TMPDIR=" + temporary.string(), TPTRAIN_BINARY};
  for (const std::string& argument : evaluate({"--data", "text/eval.txt", "--seq-length", "32"}))
    command.push_back(argument);
  const ProcessResult words = run_process(command, job.directory());
  INFO(words.output);
  CHECK(words.exit_code == 0);
  for (const char* part :
       {"model       run/checkpoints/step-00000008, step 8\n", "loss        ", "perplexity  ",
        "tokens      992 predicted, of 993 in 1 document; windows of 32, packing stream\n",
        "on tp 1 x dp 1, fp32\n"}) {
    INFO(part);
    CHECK(words.standard_output.find(part) != std::string::npos);
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(temporary)) {
    // MPI keeps a directory of its own there.
    CHECK(entry.path().filename().string().rfind("tptrain", 0) != 0);
  }
}

TEST_CASE("what evaluate cannot do is refused", "[e2e]") {
  const Job& job = trained();
  const auto refused = [&](const Arguments& more, int code, const std::string& message) {
    check_refused(job.tool(evaluate(more)), code, message);
  };
  refused({"--data", "text/none*"}, 3, "data error: --data[0]: \"text/none*\" matches no file");
  refused({"--data", "text/eval.txt", "--format", "jsonl"}, 3,
          "data error: text/eval.txt:1: the line is not JSON");
  refused({"--data", "text/eval.txt", "--tp-size", "3"}, 2,
          "--tp-size is 3: it must be a tp size that divides the model.\n"
          "  tp sizes that work for this model: 1, 2, 4.");
  refused({"--data", "text/eval.txt", "--tp-size", "2"}, 2,
          "--tp-size is 2, and there are 1 ranks: it must divide their number.\n"
          "  Start a multiple of 2 ranks (mpirun -n).");
  check_refused(job.tool({"evaluate", "--checkpoint", "nowhere", "--data", "text/eval.txt"}), 4,
                "checkpoint error: nowhere: there is no such directory");
#ifndef TPTRAIN_CUDA
  refused({"--data", "text/eval.txt", "--device", "cuda"}, 2,
          "--device is cuda, but this build of tptrain or this host has no CUDA.");
#endif
}

}  // namespace tptrain::testing
