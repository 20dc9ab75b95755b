// The keys of parallel and data.
#include "config/key_binding.h"

namespace tptrain::config {

namespace {

/// Of kColumnNames, in its order: what stands in each.
constexpr std::array<const char*, kColumnNames.size()> kColumnDocs = {
    "The text of a row.",
    "The ids of a text that is tokenized already.",
    "Beside input_ids: what each is to be predicted as, -100 where it is no target.",
    "Beside input_ids: 0 where there is padding.",
    "The list of messages of a conversation.",
    "Such a list in sharegpt's form: from `human` or `gpt`, and a value.",
    "Within a message: who speaks. Where it is named, `human` and `gpt` are user and assistant in "
    "`messages` too.",
    "Within a message: what is said.",
    "What the system says before the first message.",
    "The tools that a conversation may call.",
    "The question, in alpaca's form.",
    "Beside instruction: what follows it.",
    "Beside instruction: the answer.",
    "Beside instruction: the turns before, as pairs.",
    "What goes before the completion, as a text or as messages; it is not learned.",
    "What is learned behind the prompt, as a text (without a chat template) or as messages."};

/// `key` of the entry `name` of a mapping of data, absent where the file has no such entry.
template <typename T>
Key entry_key(Key key, const std::string& name,
              std::map<std::string, T, std::less<>> DataConfig::*mapping) {
  key.presence = Presence::absent;
  key.hint = cat("`", name, "`");
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    const auto& entries = config.data.*mapping;
    const auto found = entries.find(name);
    return found == entries.end() ? std::nullopt : std::optional<Value>(found->second);
  };
  key.set = [=](RunConfig& config, const Value& value) {
    (config.data.*mapping)[name] = std::get<T>(value);
  };
  return key;
}

Key column_key(size_t i) {
  const std::string name = kColumnNames[i];
  return entry_key({.path = cat("data.columns.", name), .doc = kColumnDocs[i]}, name,
                   &DataConfig::columns);
}

/// Of kRoleNames, in its order.
constexpr std::array<const char*, kRoleNames.size()> kRoleDocs = {
    "What the system says.", "What a developer says, of whom few templates know.",
    "The words for who asks.",
    "The words for whose answers are learned (of data.train_on: assistant).",
    "The words for what a tool gives back."};

Key role_key(size_t i) {
  const std::string name = kRoleNames[i];
  return entry_key({.path = cat("data.roles.", name),
                    .type = Type::words,
                    .any_alone = true,
                    .doc = kRoleDocs[i]},
                   name, &DataConfig::roles);
}

std::vector<Key> role_keys() {
  std::vector<Key> keys;
  for (size_t i = 0; i < kRoleNames.size(); ++i) keys.push_back(role_key(i));
  return keys;
}

std::vector<Key> column_keys() {
  std::vector<Key> keys;
  for (size_t i = 0; i < kColumnNames.size(); ++i) keys.push_back(column_key(i));
  return keys;
}

}  // namespace

std::vector<Key> parallel_keys() {
  return {
      bind({.path = "parallel.tp_size",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Ranks that share one copy of the model (tensor parallel)."},
           &RunConfig::parallel, &ParallelConfig::tp_size),
      bind({.path = "parallel.dp_size",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Copies of the model, each with its own part of the batch (data parallel).",
            .hint = "number of ranks / tp_size"},
           &RunConfig::parallel, &ParallelConfig::dp_size),
      bind({.path = "parallel.zero_stage",
            .type = Type::integer,
            .limits = {.at_least = 0, .at_most = 3},
            .doc = "ZeRO stage: each dp rank keeps everything whole (0), or 1/dp_size of the "
                   "optimizer state (1), of the gradients too (2), of the parameters too (3); 2 "
                   "and 3 reduce gradients after every micro-batch, 3 also gathers the parameters "
                   "of each block before its forward and its backward; at the same "
                   "reduce_gradients all stages train bitwise the same."},
           &RunConfig::parallel, &ParallelConfig::zero_stage),
      bind({.path = "parallel.sequence_parallel",
            .type = Type::boolean,
            .doc = "Outside attention and feed-forward each tp rank keeps a 1/tp_size slice of the "
                   "sequence instead of all of it: less activation memory for the same traffic, "
                   "the same training within rounding; no effect with tp_size 1."},
           &RunConfig::parallel, &ParallelConfig::sequence_parallel),
      bind({.path = "parallel.recompute",
            .doc = "What the backward makes again instead of keeping it from the forward: nothing, "
                   "what is cheap (`selective`: norm outputs and the SwiGLU product; no GEMM), or "
                   "each layer's whole forward (`full`: the least memory, about a third more "
                   "compute); the numbers are bitwise the same (but for `selective` with GELU in "
                   "bf16 on a GPU without train.deterministic: the activation made again is "
                   "rounded once more)."},
           &RunConfig::parallel, &ParallelConfig::recompute),
      bind({.path = "parallel.reduce_gradients",
            .presence = Presence::absent,
            .doc =
                "When the dp ranks sum their gradients: once a step (the least traffic; zero_stage "
                "0 and 1 only), or after every micro-batch; the sums agree within rounding.",
            .hint = "per_step for zero_stage 0 and 1, per_micro_batch for 2 and 3"},
           &RunConfig::parallel, &ParallelConfig::reduce_gradients),
      bind({.path = "parallel.reduce_dtype",
            .doc = "Type of the gradients on their way between dp ranks; `bf16` halves that "
                   "traffic and rounds the gradients, which changes the numbers."},
           &RunConfig::parallel, &ParallelConfig::reduce_dtype),
      bind({.path = "parallel.tp_overlap",
            .doc = "How the slices of the sequence travel between the GPUs of a tp group: `auto` "
                   "pushes them piece by piece into each other's memory, beside the products that "
                   "make or need them, over NVLink where a trial at the start shows that it works, "
                   "else through NCCL; `on`: over PCIe too; `off`: always through NCCL. No effect "
                   "on the CPU or without sequence_parallel."},
           &RunConfig::parallel, &ParallelConfig::tp_overlap),
      bind({.path = "parallel.dp_overlap",
            .doc = "How gradients and parameters travel between the GPUs of a dp group: `auto` "
                   "pushes them into each other's memory by copy engines, beside the products, "
                   "over NVLink where a trial at the start shows that it works, else through NCCL; "
                   "`on`: over PCIe too; `off`: always through NCCL. No effect on the CPU."},
           &RunConfig::parallel, &ParallelConfig::dp_overlap),
  };
}

// Long: a table, an entry a key, in the order of docs/configuration.md.
std::vector<Key> data_keys() {
  std::vector<Key> keys = {
      bind({.path = "data.train",
            .type = Type::sources,
            .presence = Presence::required,
            .doc = "Files to train on: a list of globs (`*`, `?`, `[..]`, `**`), each as a plain "
                   "text or as `{path: GLOB, ...}` with, as it is needed, `weight` (its part of "
                   "the sequences, in any unit; given for all entries or for none), `name` (in "
                   "metrics), `format`, `columns` and `roles` (in place of data.columns and "
                   "data.roles), `subset` (`5%` of its rows, or `1000` of them) and `repeat` (how "
                   "often an epoch visits it). Plain "
                   "texts together are one source.",
            .hint = "[\"corpus/*.txt\"]"},
           &RunConfig::data, &DataConfig::train),
      bind(
          {.path = "data.eval",
           .type = Type::source_sets,
           .doc =
               "Files to evaluate on, written likewise (`path`, `format`, `columns`, `roles`, "
               "`subset`); or several sets of them by their names: `{wiki: [GLOB], chat: [GLOB]}`.",
           .hint = "no evaluation"},
          &RunConfig::data, &DataConfig::eval),
      bind({.path = "data.eval_share",
            .presence = Presence::absent,
            .doc = "In place of data.eval: the share of the documents of data.train that is held "
                   "out to evaluate on (`1%`), chosen by a hash of what each holds, so that equal "
                   "ones go together and every run holds out the same.",
            .hint = "none is held out"},
           &RunConfig::data, &DataConfig::eval_share),
      bind({.path = "data.tokenizer",
            .type = Type::path,
            .presence = Presence::absent,
            .doc = "Directory or file of a tokenizer (`tokenizer.json`, `tokenizer.model`, "
                   "`vocab.json` with `merges.txt`), or `bytes`: one token per byte.",
            .hint = "that of model.path, else bytes"},
           &RunConfig::data, &DataConfig::tokenizer),
      bind({.path = "data.format",
            .presence = Presence::absent,
            .doc =
                "What the files hold: `text`, a file is one document; or `jsonl`, a row is one, a "
                "JSON object a line or the elements of one JSON array: `{\"text\": ...}`, or "
                "`{\"input_ids\": [...]}` of text already tokenized (-100 in `\"labels\"` beside "
                "it: not a target; 0 in `\"attention_mask\"`: padding), or a conversation "
                "(`{\"messages\": [...]}` and others, see train_on); or `parquet`, the same rows "
                "in Parquet or Arrow files. All rows of a file are of one "
                "kind. Files may be packed by gzip or zstd. Or `indexed`: NAME.bin and NAME.idx of "
                "Megatron-LM, read where they lie.",
            .hint = "each file by its name and contents; what is neither is refused"},
           &RunConfig::data, &DataConfig::format),
      bind({.path = "data.text_key",
            .doc = "Key of a row that holds its text; a dot is a part of its name. Other columns, "
                   "and what rows are where they could be several things: data.columns."},
           &RunConfig::data, &DataConfig::text_key),
      bind({.path = "data.max_bad_fraction",
            .type = Type::real,
            .limits = {.at_least = 0, .below = 1},
            .doc = "Share of the rows that may be malformed (no JSON, another kind than the other "
                   "rows of its file, a conversation that the template refuses): up to it they are "
                   "left out, counted and the first ones named, beyond it the data is refused."},
           &RunConfig::data, &DataConfig::max_bad_fraction),
      bind({.path = "data.chat_template",
            .type = Type::path,
            .presence = Presence::absent,
            .doc = "File with the Jinja template that renders rows of conversations.",
            .hint = "that of the tokenizer"},
           &RunConfig::data, &DataConfig::chat_template),
      bind({.path = "data.train_on",
            .doc = "What is learned of rows that hold a conversation, or a prompt with its "
                   "completion: what the `assistant` says, its reasoning and tool calls included; "
                   "its `last` answer alone; or `all` tokens. Rows of text and of ids are not "
                   "concerned."},
           &RunConfig::data, &DataConfig::train_on),
      bind({.path = "data.train_on_end",
            .type = Type::boolean,
            .doc = "The token that closes an answer (`<|im_end|>`, `</s>`) is learned with it; "
                   "without it a model does not learn to stop."},
           &RunConfig::data, &DataConfig::train_on_end),
      bind(
          {.path = "data.cache_dir",
           .type = Type::path,
           .presence = Presence::absent,
           .doc = "Directory for the token files that are made of the data, which several runs may "
                  "share: what one has tokenized the others use.",
           .hint = "run_dir/data"},
          &RunConfig::data, &DataConfig::cache_dir),
      bind({.path = "data.trust_times",
            .type = Type::boolean,
            .doc = "A file whose size and time of change are those of an earlier run holds what it "
                   "held then, and is not read to make sure, and neither are the token files: for "
                   "corpora that take long to read. What is known stands in cache_dir."},
           &RunConfig::data, &DataConfig::trust_times),
      bind({.path = "data.packing",
            .doc = "How documents become sequences of train.seq_length: `stream`, end to end, each "
                   "closed by end of text, and cut where a sequence is full; `best_fit`, whole, "
                   "those together that fill a sequence best, cut only where one is longer than a "
                   "sequence; or `none`, one document a sequence, of a long one the rest is left "
                   "out. What then is left of a sequence is padding, which is no target."},
           &RunConfig::data, &DataConfig::packing),
      bind({.path = "data.document_mask",
            .type = Type::boolean,
            .doc = "Documents packed into one sequence do not see each other: attention stays "
                   "within a document, positions begin at 0 in each, and what would follow its "
                   "last token is no target, in training and in its evaluations; not together "
                   "with dropout."},
           &RunConfig::data, &DataConfig::document_mask),
      bind({.path = "data.special_as_text",
            .type = Type::boolean,
            .doc = "Strings such as `<|endoftext|>` within documents are ordinary text instead of "
                   "special tokens; for text that is not trusted."},
           &RunConfig::data, &DataConfig::special_as_text),
      bind({.path = "data.shuffle",
            .type = Type::boolean,
            .doc = "Each epoch visits the sequences in another order, drawn from train.seed."},
           &RunConfig::data, &DataConfig::shuffle),
  };
  return joined({std::move(keys), column_keys(), role_keys()});
}

}  // namespace tptrain::config
