// Every message that a run file can be refused with: the whole text, since place and remedy are
// what the user reads.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "config/keys.h"
#include "config_test.h"

namespace tptrain::testing {
namespace {

// The minimal file has four lines: `more` begins at line 5.
std::string refusal_of(const std::string& more) { return refusal(kMinimal + more); }

TEST_CASE("an unknown key is refused with its place and the nearest known one") {
  CHECK(refusal_of("parallel:\n  tp_sze: 2\n") ==
        "config error: run.yaml:6:3: parallel.tp_sze is no known key.\n"
        "  Did you mean parallel.tp_size?");
  CHECK(refusal_of("paralel: {tp_size: 2}\n") ==
        "config error: run.yaml:5:1: paralel is no known key.\n  Did you mean parallel?");
}

TEST_CASE("a key in the wrong section is told its section") {
  CHECK(refusal_of("tp_size: 2\n") ==
        "config error: run.yaml:5:1: tp_size is no known key.\n  Did you mean parallel.tp_size?");
  CHECK(refusal_of("every_steps: 2\n") ==
        "config error: run.yaml:5:1: every_steps is no known key.\n"
        "  Did you mean eval.every_steps or logging.every_steps?");
}

TEST_CASE("a list of words is a list, and each of its words a known one") {
  CHECK(refusal_of("checkpoint: {allow_changes: train.seed}\n") ==
        "config error: run.yaml:5:29: checkpoint.allow_changes is train.seed: it must be a list of "
        "texts.\n  Write [\"train.seed\"].");
  CHECK(refusal_of("checkpoint: {allow_changes: [train.seed, train.sed]}\n") ==
        "config error: run.yaml:5:29: checkpoint.allow_changes[1] is train.sed: it must be one of "
        "data.packing, data.shuffle, data.tokenizer, data.train, train.global_batch_size, "
        "train.seed, train.seq_length.\n  Did you mean train.seed?");
  check_contains(refusal_of("checkpoint: {allow_changes: [{a: b}]}\n"),
                 "checkpoint.allow_changes[0] is a mapping: it must be a text");
}

TEST_CASE("an unknown key that resembles none lists the keys of its section") {
  CHECK(refusal_of("parallel: {frobnicate: 2}\n") ==
        "config error: run.yaml:5:12: parallel.frobnicate is no known key.\n"
        "  parallel has the keys tp_size, dp_size, zero_stage, sequence_parallel, recompute, "
        "reduce_gradients, reduce_dtype, tp_overlap, dp_overlap.");
  CHECK(refusal_of("frobnicate: 2\n") ==
        "config error: run.yaml:5:1: frobnicate is no known key.\n"
        "  The top level has the keys run_dir, model, adapter, parallel, data, train, optimizer, "
        "scheduler, "
        "checkpoint, eval, logging.");
}

TEST_CASE("keys that this version does not have are unknown, not ignored") {
  for (const std::string key : {"max_tokens: 1000", "max_samples: 1"}) {
    check_contains(refusal("run_dir: r\nmodel: {path: m}\ndata: {train: [a]}\n"
                           "train:\n  max_steps: 1\n  " +
                           key + "\n"),
                   "run.yaml:6:3: train." + key.substr(0, key.find(':')) + " is no known key");
  }
}

TEST_CASE("a key given twice is refused, naming both places") {
  CHECK(refusal_of("parallel:\n  tp_size: 2\n  tp_size: 4\n") ==
        "config error: run.yaml:7:3: parallel.tp_size is given twice, first at run.yaml:6:3.\n"
        "  Remove one of the two.");
  CHECK(refusal_of("train: {max_steps: 11}\n") ==
        "config error: run.yaml:5:1: train is given twice, first at run.yaml:4:1.\n"
        "  Remove one of the two.");
}

TEST_CASE("a key that is no text is refused") {
  CHECK(refusal_of("[a, b]: 2\n") ==
        "config error: run.yaml:5:1: the file has a list as a key: it must be the name of a key.");
}

TEST_CASE("values of another type are refused") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"parallel: {tp_size: 3.0}",
       "run.yaml:5:21: parallel.tp_size is 3.0: it must be an integer, in digits only.\n  Write "
       "3."},
      {"parallel: {tp_size: 1e3}",
       "run.yaml:5:21: parallel.tp_size is 1e3: it must be an integer, in digits only.\n  Write "
       "1000."},
      {"parallel: {tp_size: 2.5}",
       "run.yaml:5:21: parallel.tp_size is 2.5: it must be an integer, in digits only."},
      {"parallel: {tp_size: \"2\"}",
       "run.yaml:5:21: parallel.tp_size is the text \"2\": it must be an integer, in digits "
       "only.\n  Write 2, without quotes."},
      {"parallel: {tp_size: two}",
       "run.yaml:5:21: parallel.tp_size is two: it must be an integer, in digits only."},
      {"parallel: {tp_size: 0x10}",
       "run.yaml:5:21: parallel.tp_size is 0x10: it must be an integer, in digits only."},
      {"parallel: {tp_size: 010}",
       "run.yaml:5:21: parallel.tp_size is 010: it must be an integer, in digits only.\n  Write "
       "10."},
      {"parallel: {tp_size: [2]}",
       "run.yaml:5:21: parallel.tp_size is a list: it must be a single value."},
      {"parallel: {tp_size: {a: 1}}",
       "run.yaml:5:21: parallel.tp_size is a mapping: it must be a single value."},
      {"parallel: {tp_size: 99999999999999999999}",
       "run.yaml:5:21: parallel.tp_size is 99999999999999999999: it must be an integer from "
       "-9223372036854775808 to 9223372036854775807."},
      {"optimizer: {learning_rate: fast}",
       "run.yaml:5:28: optimizer.learning_rate is fast: it must be a finite number, such as 0.001 "
       "or 1e-3."},
      {"optimizer: {learning_rate: .inf}",
       "run.yaml:5:28: optimizer.learning_rate is .inf: it must be a finite number, such as 0.001 "
       "or 1e-3."},
      {"optimizer: {learning_rate: 1e999}",
       "run.yaml:5:28: optimizer.learning_rate is 1e999: it must be a finite number, such as 0.001 "
       "or 1e-3."},
      {"optimizer: {learning_rate: \"1e-3\"}",
       "run.yaml:5:28: optimizer.learning_rate is the text \"1e-3\": it must be a finite number, "
       "such as 0.001 or 1e-3.\n  Quotes make it a text: leave them out."},
      {"optimizer: {betas: 0.9}",
       "run.yaml:5:20: optimizer.betas is 0.9: it must be a list of two numbers, such as [0.9, "
       "0.95]."},
      {"optimizer: {betas: [0.9]}",
       "run.yaml:5:20: optimizer.betas has 1 elements: it must be a list of two numbers, such as "
       "[0.9, 0.95]."},
      {"optimizer: {betas: [0.9, x]}",
       "run.yaml:5:26: optimizer.betas[1] is x: it must be a finite number, such as 0.001 or "
       "1e-3."},
      {"parallel: 2",
       "run.yaml:5:11: parallel is 2: it must be a mapping of the keys tp_size, dp_size, "
       "zero_stage, sequence_parallel, recompute, reduce_gradients, reduce_dtype, tp_overlap, "
       "dp_overlap.\n  Write each "
       "key on its own line, as `key: value`."},
      {"parallel: [tp_size]",
       "run.yaml:5:11: parallel is a list: it must be a mapping of the keys tp_size, dp_size, "
       "zero_stage, sequence_parallel, recompute, reduce_gradients, reduce_dtype, tp_overlap, "
       "dp_overlap.\n  Write each "
       "key on its own line, as `key: value`."},
  };
  for (const auto& [text, message] : cases) {
    CHECK(refusal_of(text + "\n") == "config error: " + message);
  }
  CHECK(refusal("run_dir: [a]\nmodel: {path: m}\ndata: {train: [a]}\ntrain: {max_steps: 1}\n") ==
        "config error: run.yaml:1:10: run_dir is a list: it must be a single value.");
}

TEST_CASE("only true and false are booleans") {
  const auto told = [](const std::string& word) {
    const std::string message = refusal(kMinimal, {"data.shuffle=" + word});
    const std::string head = "config error: --set data.shuffle=" + word + ": data.shuffle is ";
    CHECK(message.substr(0, head.size()) == head);
    return message.substr(std::min(message.size(), head.size()));
  };
  for (const std::string word : {"yes", "True", "TRUE", "on", "1"}) {
    CHECK(told(word) == word +
                            ": it must be true or false.\n  Write true: no other spelling is "
                            "read.");
  }
  for (const std::string word : {"no", "False", "off", "0"}) {
    CHECK(told(word) == word +
                            ": it must be true or false.\n  Write false: no other spelling is "
                            "read.");
  }
  CHECK(told("\"true\"") ==
        "the text \"true\": it must be true or false.\n"
        "  Quotes make it a text: write true without them.");
  CHECK(told("maybe") == "maybe: it must be true or false.");
}

TEST_CASE("null is refused") {
  CHECK(refusal_of("parallel:\n  tp_size:\n  dp_size: ~\n") ==
        "config error: run.yaml:7:3: parallel.tp_size is null: it must have a value.\n"
        "  Give one, or leave the key out.\n"
        "config error: run.yaml:7:12: parallel.dp_size is null: it must have a value.\n"
        "  Give one, or leave the key out.");
  CHECK(refusal_of("eval:\n") ==
        "config error: run.yaml:6:1: eval is null: it must be a mapping of the keys every_steps, "
        "every_epochs, max_batches, patience.\n  Give keys below it, or leave the section out.");
  CHECK(refusal("run_dir: null\nmodel: {path: m}\ndata: {train: [a]}\ntrain: {max_steps: 1}\n") ==
        "config error: run.yaml:1:10: run_dir is null: it must have a value.\n"
        "  Give one, as in `run_dir: runs/my-run`.");
}

TEST_CASE("values out of bounds are refused") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"parallel: {tp_size: 0}", "run.yaml:5:21: parallel.tp_size is 0: it must be at least 1."},
      {"parallel: {tp_size: 2147483648}",
       "run.yaml:5:21: parallel.tp_size is 2147483648: it must be at most 2147483647."},
      {"parallel: {dp_size: -1}", "run.yaml:5:21: parallel.dp_size is -1: it must be at least 0."},
      {"parallel: {zero_stage: 4}",
       "run.yaml:5:24: parallel.zero_stage is 4: it must be 0, 1, 2 or 3."},
      {"parallel: {zero_stage: -1}",
       "run.yaml:5:24: parallel.zero_stage is -1: it must be 0, 1, 2 or 3."},
      {"parallel: {recompute: half}",
       "run.yaml:5:23: parallel.recompute is half: it must be one of none, selective, full."},
      {"parallel: {reduce_gradients: per_microbatch}",
       "run.yaml:5:30: parallel.reduce_gradients is per_microbatch: it must be one of per_step, "
       "per_micro_batch.\n  Did you mean per_micro_batch?"},
      {"parallel: {reduce_gradients: \"\"}",
       "run.yaml:5:30: parallel.reduce_gradients is \"\": it must be one of per_step, "
       "per_micro_batch.\n  Leave the key out to give no value."},
      {"parallel: {reduce_dtype: fp16}",
       "run.yaml:5:26: parallel.reduce_dtype is fp16: it must be one of fp32, bf16.\n"
       "  fp16 is not built: bf16 takes its place."},
      {"optimizer: {learning_rate: -1e-3}",
       "run.yaml:5:28: optimizer.learning_rate is -0.001: it must be at least 0."},
      {"optimizer: {eps: 0}", "run.yaml:5:18: optimizer.eps is 0.0: it must be greater than 0."},
      {"optimizer: {betas: [0.9, 1.0]}",
       "run.yaml:5:20: optimizer.betas is [0.9, 1.0]: it must be two numbers, each at least 0 and "
       "less than 1."},
      {"optimizer: {betas: [-0.1, 0.9]}",
       "run.yaml:5:20: optimizer.betas is [-0.1, 0.9]: it must be two numbers, each at least 0 and "
       "less than 1."},
      {"optimizer: {type: sgd}",
       "run.yaml:5:19: optimizer.type is sgd: it must be one of adamw, lion, muon."},
      {"scheduler: {type: cosin}",
       "run.yaml:5:19: scheduler.type is cosin: it must be one of constant, linear, cosine, "
       "wsd.\n  Did you mean cosine?"},
      {"scheduler: {type: sawtooth}",
       "run.yaml:5:19: scheduler.type is sawtooth: it must be one of constant, linear, cosine, "
       "wsd."},
      {"scheduler: {type: wsd, decay_steps: -1}",
       "run.yaml:5:37: scheduler.decay_steps is -1: it must be at least 0."},
      {"optimizer: {moments_dtype: fp8}",
       "run.yaml:5:28: optimizer.moments_dtype is fp8: it must be one of fp32, bf16."},
      {"optimizer: {master_dtype: half}",
       "run.yaml:5:27: optimizer.master_dtype is half: it must be one of fp32, bf16.\n"
       "  fp16 is not built: bf16 takes its place."},
      {"logging: {audit_steps: -1}",
       "run.yaml:5:24: logging.audit_steps is -1: it must be at least 0."},
      {"logging: {every_steps: 0}",
       "run.yaml:5:24: logging.every_steps is 0: it must be at least 1."},
      {"checkpoint: {resume: \"\"}",
       "run.yaml:5:22: checkpoint.resume is \"\": it must not be empty."},
  };
  for (const auto& [text, message] : cases) {
    CHECK(refusal_of(text + "\n") == "config error: " + message);
  }
  CHECK(refusal(kMinimal, {"train.seed=-1"}) ==
        "config error: --set train.seed=-1: train.seed is -1: it must be an integer from 0 to "
        "18446744073709551615.");
  CHECK(refusal(kMinimal, {"train.device=gpu"}) ==
        "config error: --set train.device=gpu: train.device is gpu: it must be one of auto, cuda, "
        "cpu.\n  Its name here is cuda.");
  for (const std::string key : {"train.attention_dropout", "train.residual_dropout"}) {
    for (const std::string value : {"1.0", "-0.5", "1.5"}) {
      const std::string set = key + "=" + value;
      CHECK(refusal(kMinimal, {set}) == "config error: --set " + set + ": " + key + " is " + value +
                                            ": it must be at least 0 and less than 1.");
    }
  }
  CHECK(refusal(kMinimal, {"train.z_loss=-1e-4"}) ==
        "config error: --set train.z_loss=-1e-4: train.z_loss is -1e-4: it must be at least 0.");
  CHECK(refusal(kMinimal, {"train.dtype=fp16"}) ==
        "config error: --set train.dtype=fp16: train.dtype is fp16: it must be one of fp32, bf16.\n"
        "  fp16 is not built: bf16 takes its place.");
  CHECK(refusal(kMinimal, {"train.nonfinite=ignore"}) ==
        "config error: --set train.nonfinite=ignore: train.nonfinite is ignore: it must be one of "
        "stop, skip.\n  Its name here is skip.");
  CHECK(refusal(kMinimal, {"train.max_steps=0"}) ==
        "config error: --set train.max_steps=0: train.max_steps is 0: it must be at least 1.\n"
        "  Leave the key out to give no value.");
}

TEST_CASE("sources: lists of globs only") {
  const auto with_train = [](const std::string& value) {
    return refusal("run_dir: r\nmodel: {path: m}\ntrain: {max_steps: 1}\ndata: {train: " + value +
                   "}\n");
  };
  const std::string at = "config error: run.yaml:4:";
  CHECK(with_train("a.txt") ==
        at + "15: data.train is a.txt: it must be a list of globs.\n  Write [\"a.txt\"].");
  CHECK(with_train("{path: a.txt}") ==
        at + "15: data.train is a mapping: it must be a list of globs.");
  CHECK(with_train("[]") == at + "15: data.train is []: it must name at least one file or glob.");
  CHECK(with_train("[a.txt, \"\"]") ==
        at + "15: data.train is [a.txt, \"\"]: it must name no empty path.");
  CHECK(with_train("[[a.txt]]") == at +
                                       "16: data.train[0] is a list: it must be a glob, as a plain "
                                       "text or as {path: GLOB}.");
  CHECK(with_train("[~]") == at +
                                 "16: data.train[0] is null: it must be a glob, as a plain text or "
                                 "as {path: GLOB}.");
  CHECK(
      with_train("[{path: a.txt, frobnicate: 2.0}]") ==
      at +
          "30: data.train[0].frobnicate is no known key.\n  data.train[0] has the keys path, name, "
          "weight, format, subset, repeat, columns, roles.");
  CHECK(with_train("[{}]") == at + "16: data.train[0] has no path: it must be {path: GLOB}.");
  CHECK(with_train("[{path: [a]}]") == at + "23: data.train[0].path is a list: it must be a glob.");
  CHECK(with_train("[{path: a, path: b}]") ==
        at + "26: data.train[0].path is given twice, first at run.yaml:4:17.\n"
             "  Remove one of the two.");
}

TEST_CASE("sources: what one is to the training, each value at its own place") {
  const auto with_train = [](const std::string& value) {
    return refusal("run_dir: r\nmodel: {path: m}\ntrain: {max_steps: 1}\ndata: {train: " + value +
                   "}\n");
  };
  const std::string at = "config error: run.yaml:4:";
  CHECK(with_train("[{path: a, weight: 0}]") ==
        at + "34: data.train[0].weight is 0.0: it must be greater than 0.\n"
             "  Leave out what is not to train.");
  CHECK(with_train("[{path: a, weight: x}]") ==
        at + "34: data.train[0].weight is x: it must be a finite number, such as 0.001 or 1e-3.");
  CHECK(with_train("[b, {path: a, repeat: 0}]") ==
        at + "37: data.train[1].repeat is 0: it must be at least 1.\n  A part of it: subset: 50%.");
  CHECK(with_train("[{path: a, format: csv}]") ==
        at + "34: data.train[0].format is csv: it must be one of text, jsonl, parquet, indexed.");
  for (const std::string subset : {"0", "-1", "0%", "101%", "5 %", "x", "1.5"}) {
    check_contains(with_train("[{path: a, subset: " + subset + "}]"),
                   "it must be a share of the rows such as 5%, or a number of rows");
  }
  CHECK(with_train("[{path: a, subset: [1]}]") ==
        at + "34: data.train[0].subset is a list: it must be a single value.");
  check_contains(
      with_train("[{path: a, weight: 1}, b]"),
      "data.train[1] has no weight, and data.train[0] has one: it must be given for every "
      "entry or for none");
  check_contains(with_train("[{path: a, weight: 1, repeat: 2}]"),
                 "data.train[0] has weight 1 and repeat 2: it must have one of them");
  check_contains(with_train("[{path: a, name: x}, {path: b, name: x}]"),
                 "data.train[1].name is x again: it must be another for each entry");
}

TEST_CASE("a file of two entries is one entry, unless they read it as different things") {
  const auto with_train = [](const std::string& value) {
    return refusal(kMinimal, {"data.train=" + value});
  };
  check_contains(with_train("[{path: a, weight: 1}, {path: a, weight: 3}]"),
                 "data.train[0] and data.train[1] are both a: it must be one entry, which says how "
                 "much of it is trained on.\n  Add up their weights, or write repeat");
  check_contains(with_train("[b, {path: a, subset: 5%}, a]"),
                 "data.train[1] and data.train[2] are both a");
  parse(kMinimal, {"data.train=[a, a]"});  // one source, of which the log says that it is read once
  parse(kMinimal, {"data.train=[{path: a, columns: {text: q}}, {path: a, columns: {text: r}}]"});
}

TEST_CASE("columns by other names, for all files and for those of an entry") {
  const config::DataConfig data =
      parse(kMinimal,
            {"data.columns={messages: dialog, role: from}",
             "data.train=[{path: a, columns: {instruction: q, output: \"the answer\"}}, b]"})
          .data;
  CHECK(data.columns == config::Columns{{"messages", "dialog"}, {"role", "from"}});
  CHECK(data.train[0].columns == config::Columns{{"instruction", "q"}, {"output", "the answer"}});
  CHECK(data.train[1].columns.empty());
  const auto columns = [](const std::string& value) {
    return refusal(kMinimal, {"data.columns=" + value});
  };
  check_contains(columns("{mesages: a}"),
                 "data.columns.mesages is no known key.\n  Did you mean "
                 "data.columns.messages?");
  check_contains(columns("{response: a}"), "Its name here is output, beside instruction");
  check_contains(columns("dialog"),
                 "data.columns is dialog: it must be a mapping of the keys text, ");
  check_contains(columns("{messages: [a]}"), "data.columns.messages is a list");
  check_contains(columns("{messages: \"\"}"),
                 "data.columns.messages is \"\": it must not be empty");
  const auto entry = [](const std::string& value) {
    return refusal(kMinimal, {"data.train=[{path: a, columns: " + value + "}]"});
  };
  check_contains(entry("dialog"),
                 "data.train[0].columns is dialog: it must be a mapping of columns");
  check_contains(entry("{mesages: a}"), "Did you mean data.train[0].columns.messages?");
  check_contains(entry("{value: a}"), "Its name here is content.");
  check_contains(entry("{messages: {a: b}}"), "data.train[0].columns.messages is a mapping");
  check_contains(entry("{messages: \"\"}"), "data.train[0].columns.messages is \"\"");
  check_contains(refusal(kMinimal, {"data.text_key=a", "data.columns={text: b}"}),
                 "data.columns.text is b and data.text_key a: it must name one key");
}

TEST_CASE("who speaks by other words, for all files and for those of an entry") {
  const config::DataConfig data =
      parse(kMinimal, {"data.roles={assistant: [bot, helper], user: visitor}",
                       "data.train=[{path: a, roles: {assistant: narrator, tool: [f, g]}}, b]"})
          .data;
  CHECK(data.roles == config::Roles{{"assistant", {"bot", "helper"}}, {"user", {"visitor"}}});
  CHECK(data.train[0].roles == config::Roles{{"assistant", {"narrator"}}, {"tool", {"f", "g"}}});
  CHECK(data.train[1].roles.empty());
  const auto roles = [](const std::string& value) {
    return refusal(kMinimal, {"data.roles=" + value});
  };
  // As other trainers' mappings run, the file's word first.
  check_contains(roles("{bot: assistant}"),
                 "data.roles.bot is no known key.\n  The template's name stands first, then the "
                 "words of the files: {assistant: WORD}.");
  check_contains(roles("{asistant: a}"), "Did you mean data.roles.assistant?");
  check_contains(roles("bot"), "data.roles is bot: it must be a mapping of the keys system, ");
  check_contains(roles("{user: {a: b}}"),
                 "data.roles.user is a mapping: it must be a text or a list of texts");
  check_contains(roles("{user: [\"\"]}"), "data.roles.user[0] is \"\"");
  check_contains(roles("{user: [a, b], assistant: b}"),
                 "data.roles has \"b\" for assistant and for user: it must have each word once");
  const auto entry = [](const std::string& value) {
    return refusal(kMinimal, {"data.train=[{path: a, roles: " + value + "}]"});
  };
  check_contains(entry("bot"), "data.train[0].roles is bot: it must be a mapping of roles");
  check_contains(entry("{bot: assistant}"), "{assistant: WORD}");
  check_contains(entry("{asistant: a}"), "Did you mean data.train[0].roles.assistant?");
  check_contains(entry("{user: {a: b}}"), "data.train[0].roles.user is a mapping");
  check_contains(entry("{user: \"\"}"), "data.train[0].roles.user is \"\"");
  check_contains(entry("{user: a, tool: [b, a]}"),
                 "data.train[0].roles has \"a\" for tool and for user");
}

TEST_CASE("data.eval: a list or lists by name, of entries without what is of the training alone") {
  const auto with_eval = [](const std::string& value) {
    return refusal(kMinimal, {"data.eval=" + value});
  };
  check_contains(with_eval("{wiki: a}"), "data.eval.wiki is a: it must be a list of globs");
  check_contains(with_eval("{wiki: []}"),
                 "data.eval.wiki is []: it must name at least one file or glob");
  check_contains(with_eval("{w: [a], w: [b]}"), "data.eval.w is given twice");
  check_contains(with_eval("{w: [a, {path: b, weight: 2}]}"),
                 "data.eval.w[1].weight is 2.0: it must be left out of data.eval");
  check_contains(with_eval("[{path: b, repeat: 2}]"),
                 "data.eval[0].repeat is 2: it must be left out");
}

TEST_CASE("what is required and missing is named, at its section where there is one") {
  CHECK(
      refusal("train: {seed: 1}\n") ==
      "config error: run.yaml: run_dir is missing: it must be given.\n"
      "  Directory of everything that the run writes: checkpoints, metrics, log. For example "
      "`run_dir: runs/my-run`.\n"
      "config error: run.yaml: data.train is missing: it must be given.\n"
      "  " +
          config::find_key("data.train")->doc +
          " For example `train: [\"corpus/*.txt\"]`.\n"
          "config error: run.yaml: model names neither path nor architecture: it must give exactly "
          "one of path | architecture.\n  For example `model: {path: models/Qwen2.5-0.5B}`.\n"
          "config error: run.yaml:1:8: train names neither max_steps nor epochs: it must give "
          "exactly one of max_steps | epochs.\n  For example `train: {max_steps: 100}`.");
}

TEST_CASE("an empty file lists what is required") {
  for (const std::string text : {"", "\n", "# nothing\n", "---\n"}) {
    CHECK(refusal(text) ==
          "config error: run.yaml: the file gives no key: it must give at least run_dir, "
          "data.train, model (path | architecture), train (max_steps | epochs).\n"
          "  docs/configuration.md has every key, and configs/ files to start from.");
  }
}

TEST_CASE("a file that is no mapping is refused") {
  CHECK(refusal("- a\n- b\n") ==
        "config error: run.yaml:1:1: the file is a list: it must be a mapping of the keys run_dir, "
        "model, adapter, parallel, data, train, optimizer, scheduler, checkpoint, eval, logging.\n"
        "  Write each key on its own line, as `key: value`.");
}

TEST_CASE("the shape of a new model must be whole") {
  const std::string text =
      "run_dir: r\ndata: {train: [a]}\ntrain: {max_steps: 1}\nmodel:\n  architecture: ";
  const std::string message = refusal(text + "{hidden_size: 64, intermediate_size: 128}\n");
  CHECK(message ==
        "config error: run.yaml:5:17: model.architecture.num_hidden_layers is missing: it must be "
        "given.\n  Number of decoder layers. For example `num_hidden_layers: 4`.\n"
        "config error: run.yaml:5:17: model.architecture.num_attention_heads is missing: it must "
        "be given.\n  Number of query heads. For example `num_attention_heads: 8`.");
  check_contains(refusal(text + "{}\n"), "model.architecture.hidden_size is missing");
  check_contains(refusal(text + "llama\n"),
                 "run.yaml:5:17: model.architecture is llama: it must be a mapping");
}

TEST_CASE("of alternatives one is given") {
  CHECK(refusal("run_dir: r\ndata: {train: [a]}\ntrain: {max_steps: 1}\n"
                "model:\n  path: m\n  architecture: {hidden_size: 64, intermediate_size: 128, "
                "num_hidden_layers: 2, num_attention_heads: 4}\n") ==
        "config error: run.yaml:6:17: model.path and model.architecture are both given: it must be "
        "exactly one of path | architecture.\n  Remove one of them; the other stands at "
        "run.yaml:5:9.");
  CHECK(refusal("run_dir: r\ndata: {train: [a]}\nmodel: {path: m}\n"
                "train: {max_steps: 1, global_batch_size: 8, grad_accum_steps: 2}\n") ==
        "config error: run.yaml:4:63: train.global_batch_size and train.grad_accum_steps are both "
        "given: it must be at most one of global_batch_size | grad_accum_steps.\n"
        "  Remove one of them; the other stands at run.yaml:4:42.");
  CHECK(refusal("run_dir: r\ndata: {train: [a]}\nmodel: {}\ntrain: {max_steps: 1}\n") ==
        "config error: run.yaml:3:8: model names neither path nor architecture: it must give "
        "exactly one of path | architecture.\n  For example `model: {path: models/Qwen2.5-0.5B}`.");
}

TEST_CASE("an alternative written as 0 or empty is refused, not taken as left out") {
  CHECK(refusal(kMinimal, {"train.global_batch_size=0"}) ==
        "config error: --set train.global_batch_size=0: train.global_batch_size is 0: it must be "
        "at least 1.\n  Leave the key out to give no value.");
  CHECK(refusal(kMinimal, {"model.path=\"\""}) ==
        "config error: --set model.path=\"\": model.path is \"\": it must not be empty.\n"
        "  Leave the key out to give no value.");
}

TEST_CASE("the global batch is a whole number of micro-batches") {
  CHECK(refusal(kMinimal, {"train.global_batch_size=6", "train.micro_batch_size=4"}) ==
        "config error: --set train.global_batch_size=6: train.global_batch_size is 6 and "
        "train.micro_batch_size 4: it must be a multiple of the micro-batch size.");
}

TEST_CASE("invalid YAML is refused with its place") {
  CHECK(refusal("run_dir: [a\n") ==
        "config error: run.yaml:2:1: this is not valid YAML: end of sequence flow not found.\n"
        "  Indent with spaces, and quote texts that hold : # [ ] { } * or &.");
  const std::string tab =
      "the line is indented with a tab: it must be indented with spaces.\n"
      "  Two spaces a level; an editor can be told to write them.";
  CHECK(refusal("run_dir: a\n\tmodel: b\n") == "config error: run.yaml:2:1: " + tab);
  CHECK(refusal("data:\n  \ttrain: [a]\n  eval: [b]\n") == "config error: run.yaml:2:3: " + tab);
  check_contains(refusal(std::string("\xFF\xFEr\0u\0", 6)), "It seems to be UTF-16");
  check_contains(refusal("run_dir: *nowhere\n"), "run.yaml:1:10: this is not valid YAML");
  // A second document, and characters that yaml-cpp counts to no document.
  const std::string goes_on =
      ": the text goes on after its first YAML document: it must be one document.\n"
      "  Remove the line of --- before this place, or the characters here that belong to no key.";
  CHECK(refusal(kMinimal + "---\nrun_dir: b\n") == "config error: run.yaml:5:1" + goes_on);
  CHECK(refusal("," + kMinimal) == "config error: run.yaml:1:1" + goes_on);
  check_contains(refusal(kMinimal + "]\n"), "config error: run.yaml:5:1");
}

TEST_CASE("escapes of YAML and JSON that name no character are refused in plain words") {
  for (const std::string escape : {"\\ud83d", "\\ud83d\\ude00", "\\udc00", "\\U00110000"}) {
    const std::string column = std::to_string(11 + (escape[1] == 'u' ? 6 : 10));  // behind it
    CHECK(refusal("run_dir: \"" + escape + "\"\n") ==
          "config error: run.yaml:1:" + column +
              ": an escape within double quotes names no character: it must name one up to "
              "U+10FFFF: \\ud800 to \\udfff are halves of pairs, which JSON has and YAML has not.\n"
              "  Write the character itself, or its one number: \\U0001F600 for \\ud83d\\ude00.");
  }
  CHECK(parse(kMinimal, {"run_dir=\"\\U0001F600\""}).run_dir == "\xF0\x9F\x98\x80");
}

TEST_CASE("control characters of a text are refused, and reach no terminal") {
  for (const auto& [escape, shown] : std::vector<std::pair<std::string, std::string>>{
           {"\\e[2J", "\\x1b[2J"},
           {"a\\0b", "a\\x00b"},
           {"a\\nconfig error: b", "a\\nconfig error: b"}}) {
    CHECK(refusal(kMinimal, {"run_dir=\"" + escape + "\""}) ==
          "config error: --set run_dir=\"" + escape + "\": run_dir is the text \"" + shown +
              "\": it must be without control characters.");
  }
  CHECK(refusal_of("parallel: {tp_size: \"\\e[2J\"}\n") ==
        "config error: run.yaml:5:21: parallel.tp_size is the text \"\\x1b[2J\": it must be an "
        "integer, in digits only.");
  CHECK(refusal_of("\"\\e[2J\": 1\n").find('\x1b') == std::string::npos);
}

TEST_CASE("the merge key of YAML 1.1 is refused by name, at every level") {
  const std::string remedy =
      " is no known key: the merge of YAML 1.1 is not read.\n"
      "  Write the keys out, or take a whole section from elsewhere with an alias, as in `eval: "
      "*name`.";
  CHECK(refusal("<<: {run_dir: r}\n" + kMinimal) == "config error: run.yaml:1:1: <<" + remedy);
  CHECK(refusal_of("eval: &e {every_steps: 2}\nparallel:\n  <<: *e\n") ==
        "config error: run.yaml:7:3: parallel.<<" + remedy);
}

TEST_CASE("a file of any size is refused within bounds") {
  std::string unknown = kMinimal;
  for (int i = 0; i < 20000; ++i) unknown += "unknown_key_" + std::to_string(i) + ": 1\n";
  const std::string told = refusal(unknown);
  CHECK(std::count(told.begin(), told.end(), '\n') < 200);
  check_contains(told, "config error: run.yaml:5:1: unknown_key_0 is no known key.");
  check_contains(told, "config error: run.yaml: there are 19950 more problems.");

  std::string endless = kMinimal;  // 7 MB
  for (int i = 0; i < 500000; ++i) endless += "k" + std::to_string(i) + ": 1\n";
  CHECK(
      refusal(endless) ==
      "config error: run.yaml:49997:1: here begins value 100001: it must have at most 100000 keys "
      "and values.\n  Name many files by a glob or by their folder.");

  const std::string deep = kMinimal + "data: " + std::string(5000, '[') + std::string(5000, ']');
  check_contains(refusal(deep), "lists and mappings are nested hundreds of levels deep");

  // A tree of 10^9 names out of nine lines.
  std::string laughs = "a0: &a0 {lr: 1, bf16: 1}\n";
  for (int i = 1; i < 10; ++i) {
    const std::string n = std::to_string(i), alias = "*a" + std::to_string(i - 1) + " ";
    laughs += "a" + n + ": &a" + n + " {";
    for (int j = 0; j < 10; ++j) laughs += "k" + std::to_string(j) + ": " + alias + ", ";
    laughs += "}\n";
  }
  CHECK(refusal(laughs).size() < 20000);

  const std::string long_word = refusal(kMinimal, {"train.dtype=" + std::string(1 << 20, 'x')});
  CHECK(long_word.size() < (1 << 20) + 1000);  // --set shows itself, the value does not again
}

TEST_CASE("bytes that are no UTF-8 text are refused with their place") {
  using namespace std::string_literals;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xFF"s, "FF"},              // in no UTF-8 text
      {"\xC3"s, "C3"},              // cut short
      {"\xC0\x80"s, "C0"},          // overlong
      {"\xE0\x80\x80"s, "E0"},      // overlong
      {"\xED\xA0\x80"s, "ED"},      // a surrogate
      {"\xF4\x90\x80\x80"s, "F4"},  // beyond U+10FFFF
      {"\x80"s, "80"},              // a continuation of nothing
      {"\0run_dir: r"s, "00"},      // yaml-cpp alone would end the text here
      {"\x1B[0m"s, "1B"},           // a terminal's escape sequence
  };
  for (const auto& [bytes, shown] : cases) {
    CHECK(refusal("# \xC3\xA9\nrun_dir: " + bytes + "\n") ==
          "config error: run.yaml:2:10: there is the byte 0x" + shown +
              ": it must be text in UTF-8, without control characters.\n  " +
              (shown == "ED" ? "Half of a surrogate pair stands here: save the text as UTF-8, "
                               "each character whole."
                             : "Save the text as UTF-8."));
  }
  CHECK(parse(kMinimal, {"run_dir=\xC3\xA9/\xE6\x97\xA5/\xF0\x9F\x8D\x8E"}).run_dir ==
        "\xC3\xA9/\xE6\x97\xA5/\xF0\x9F\x8D\x8E");
}

TEST_CASE("all problems of a file come at once") {
  const std::string message = refusal(
      "run_dirr: a\nmodel: {path: m}\ndata: {train: [a], shuffle: yes}\n"
      "train: {max_steps: 1.5}\nparallel: {zero_stage: 4}\n",
      {"logging.every_steps=0"});
  for (const std::string part :
       {"run.yaml:1:1: run_dirr is no known key", "run_dir is missing",
        "run.yaml:3:29: data.shuffle is yes", "run.yaml:4:20: train.max_steps is 1.5",
        "run.yaml:5:24: parallel.zero_stage is 4", "--set logging.every_steps=0"}) {
    check_contains(message, part);
  }
  // What was refused is not called missing as well.
  CHECK(message.find("train names neither") == std::string::npos);
}

TEST_CASE("a config made in code is checked alike, without places") {
  config::RunConfig config = parse(kMinimal);
  CHECK(config::check_sections(config, {}).empty());
  config.parallel.zero_stage = 4;
  config.optimizer.betas = {0.9};
  config.train.max_steps = 0;
  config.train.z_loss = -1;
  config.train.grad_accum_steps = 2;
  config.train.global_batch_size = 4;
  std::vector<std::string> texts;
  for (const Problem& p : config::check_sections(config, {})) texts.push_back(p.text());
  CHECK(texts.size() == 5);
  const std::string all = join(texts, "\n");
  check_contains(all, "train names neither max_steps nor epochs");
  check_contains(all, "parallel.zero_stage is 4: it must be 0, 1, 2 or 3");
  check_contains(all, "optimizer.betas is [0.9]: it must be two numbers");
  check_contains(all, "train.z_loss is -1.0");
  check_contains(all, "are both given");
}

}  // namespace
}  // namespace tptrain::testing
