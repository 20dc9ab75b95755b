// What the section `data` of a run file becomes as corpora: each key in its place, what a source
// says for itself before what the section says for all, and the parts of a held-out share.
#include "train/corpora.h"

#include "base/text.h"
#include "config/parse.h"
#include "support/catch.h"

namespace tptrain::train {
namespace {

config::RunConfig run_with(const std::string& data) {
  return config::parse_run_config(cat("run_dir: run\nmodel: {architecture: {hidden_size: 8, "
                                      "intermediate_size: 8, num_hidden_layers: 1, "
                                      "num_attention_heads: 1}}\ntrain: {max_steps: 1}\ndata: ",
                                      data, "\n"),
                                  "run.yaml", {})
      .config;
}

std::vector<std::string> paths_of(const NamedCorpus& named) {
  std::vector<std::string> paths;
  for (const config::DataSource& source : named.corpus.sources) paths.push_back(source.path);
  return paths;
}

}  // namespace

TEST_CASE("what data says of rows reaches every corpus", "[train]") {
  const config::RunConfig run = run_with(
      "{train: [a, b], eval: [c], tokenizer: bytes, format: jsonl, text_key: body, "
      "columns: {prompt: ask, completion: reply}, roles: {assistant: bot}, max_bad_fraction: 0.25, "
      "special_as_text: true, "
      "trust_times: true, train_on: last, train_on_end: false}");
  const std::vector<NamedCorpus> train = train_corpora(run, 300), eval = eval_corpora(run, 300);
  REQUIRE(train.size() == 1);  // plain paths are one
  REQUIRE(eval.size() == 1);
  CHECK(paths_of(train[0]) == std::vector<std::string>{"a", "b"});
  CHECK(paths_of(eval[0]) == std::vector<std::string>{"c"});
  CHECK(train[0].corpus.key == "data.train");
  CHECK(eval[0].corpus.key == "data.eval");
  for (const data::Corpus& corpus : {train[0].corpus, eval[0].corpus}) {
    CHECK(corpus.format == config::DataFormat::jsonl);
    CHECK(corpus.names.of("text") == "body");
    CHECK(corpus.names.of("prompt") == "ask");
    CHECK(corpus.names.of("completion") == "reply");
    CHECK(corpus.names.role_of("bot") == "assistant");
    CHECK(corpus.max_bad_fraction == 0.25);
    CHECK(corpus.special_as_text);
    CHECK(corpus.trust_times);
    CHECK(corpus.vocab_size == 300);
    CHECK(corpus.chat.train_on == data::TrainOn::last);
    CHECK_FALSE(corpus.chat.train_on_end);
    CHECK_FALSE(corpus.subset);
    CHECK_FALSE(corpus.holdout.any());
  }
  const data::Corpus plain =
      train_corpora(run_with("{train: [a], tokenizer: bytes}"), 300)[0].corpus;
  CHECK_FALSE(plain.format);
  CHECK(plain.names.of("text") == "text");
  CHECK(plain.max_bad_fraction == 0);
  CHECK_FALSE(plain.special_as_text);
  CHECK_FALSE(plain.trust_times);
  CHECK(plain.chat.train_on == data::TrainOn::assistant);
  CHECK(plain.chat.train_on_end);
}

TEST_CASE("a source's own words come before the section's, and stay its own", "[train]") {
  const std::vector<NamedCorpus> train = train_corpora(
      run_with(
          "{tokenizer: bytes, text_key: body, format: text, roles: {user: guest}, train: ["
          "{path: a, name: first, weight: 3, format: jsonl, subset: 25%, columns: {text: page}, "
          "roles: {assistant: [bot, guest]}}, {path: b, weight: 1, subset: '10'}]}"),
      300);
  REQUIRE(train.size() == 2);
  CHECK(train[0].name == "first");
  CHECK(train[0].weight == 3.0);
  CHECK(train[0].repeat == 1);
  CHECK(train[0].corpus.first == 0);
  CHECK(train[0].corpus.format == config::DataFormat::jsonl);
  CHECK(train[0].corpus.names.of("text") == "page");
  CHECK(train[0].corpus.names.role_of("guest") == "assistant");
  REQUIRE(train[0].corpus.subset);
  CHECK(train[0].corpus.subset->fraction == 0.25);
  CHECK(train[1].name == "b");  // its path
  CHECK(train[1].weight == 1.0);
  CHECK(train[1].corpus.first == 1);
  CHECK(train[1].corpus.format == config::DataFormat::text);
  CHECK(train[1].corpus.names.of("text") == "body");
  CHECK(train[1].corpus.names.role_of("guest") == "user");
  CHECK(train[1].corpus.names.role_of("bot").empty());
  REQUIRE(train[1].corpus.subset);
  CHECK(train[1].corpus.subset->count == 10);
}

TEST_CASE("a source that an epoch visits several times says so", "[train]") {
  const std::vector<NamedCorpus> train =
      train_corpora(run_with("{tokenizer: bytes, train: [{path: a, repeat: 4}, b]}"), 300);
  REQUIRE(train.size() == 2);
  CHECK(train[0].repeat == 4);
  CHECK_FALSE(train[0].weight);
  CHECK(train[1].repeat == 1);
}

TEST_CASE("sets of data.eval are corpora of their own, named in messages", "[train]") {
  const std::vector<NamedCorpus> eval = eval_corpora(
      run_with("{train: [a], tokenizer: bytes, eval: {wiki: [b, c], chat: [d]}}"), 300);
  REQUIRE(eval.size() == 2);
  const NamedCorpus& wiki = eval[0].set == "wiki" ? eval[0] : eval[1];
  const NamedCorpus& chat = eval[0].set == "wiki" ? eval[1] : eval[0];
  CHECK(paths_of(wiki) == std::vector<std::string>{"b", "c"});
  CHECK(wiki.corpus.key == "data.eval.wiki");
  CHECK(chat.set == "chat");
  CHECK(paths_of(chat) == std::vector<std::string>{"d"});
  CHECK(chat.corpus.key == "data.eval.chat");
}

TEST_CASE("a held-out share leaves training the rest of the same files, each source once",
          "[train]") {
  const config::RunConfig run = run_with(
      "{tokenizer: bytes, eval_share: 2%, train: [{path: a, weight: 3}, {path: b, weight: 1}]}");
  const std::vector<NamedCorpus> train = train_corpora(run, 300), eval = eval_corpora(run, 300);
  REQUIRE(train.size() == 2);
  REQUIRE(eval.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(paths_of(train[i]) == paths_of(eval[i]));
    CHECK(train[i].corpus.holdout.share == 0.02);
    CHECK(eval[i].corpus.holdout.share == 0.02);
    CHECK(train[i].corpus.holdout.part == data::Holdout::Part::trained);
    CHECK(eval[i].corpus.holdout.part == data::Holdout::Part::held_out);
    CHECK(train[i].weight.has_value());
    CHECK_FALSE(eval[i].weight);
    CHECK(eval[i].repeat == 1);
  }
  CHECK(eval_split(run) == "eval_share");
}

TEST_CASE("token files go to data.cache_dir, or beside the run", "[train]") {
  CHECK(data_directory(run_with("{train: [a], tokenizer: bytes}")) == "run/data");
  CHECK(data_directory(run_with("{train: [a], tokenizer: bytes, cache_dir: all}")) == "all");
}

}  // namespace tptrain::train
