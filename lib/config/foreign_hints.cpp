// The hints that the table of foreign names gives, and the words of values that go with it.
#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "config/foreign_names.h"
#include "config/name_hints.h"

namespace tptrain::config {
namespace {

std::string normal(const std::string& name) {
  std::string text = name;
  for (char& c : text) {
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return text;
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }
std::string parent_of(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

std::string sentence(const Meaning& meaning) {
  if (meaning.path.empty()) return meaning.note;
  return cat("Its name here is ", meaning.path,
             meaning.note.empty() ? "." : cat(". ", meaning.note));
}

std::string said_of_foreign(const std::string& name) {
  const auto found = foreign_names().find(name);
  return found == foreign_names().end() ? "" : sentence(found->second);
}

struct GivenLine {
  std::vector<const char*> names;  // ours among them, where a section is given a word
  std::vector<const char*> values;
  const char* path;
  const char* note;
};

/// Names that mean one thing or another by what they are given.
const std::vector<GivenLine>& given_names() {
  static const std::vector<const char*> kSaves = {"save", "save_strategy", "checkpoint",
                                                  "checkpoint.save", "checkpoint.save_strategy"};
  static const std::vector<const char*> kEvaluations = {
      "eval", "eval_strategy", "evaluation_strategy", "evaluation", "eval.strategy"};
  static const std::vector<GivenLine> kLines = {
      {kSaves, {"epoch", "epochs"}, "checkpoint.save_epochs", "1 saves as each pass ends."},
      {kSaves, {"steps"}, "checkpoint.save_steps", "It is the number of steps."},
      {kSaves,
       {"no", "none", "false", "never"},
       "checkpoint.save_steps",
       "0 saves at the end alone."},
      {kSaves,
       {"best"},
       "checkpoint.keep_best",
       "`eval_loss` keeps the checkpoint of the lowest loss on data.eval, called RUN_DIR/best."},
      {kEvaluations, {"epoch", "epochs"}, "eval.every_epochs", "1 evaluates as each pass ends."},
      {kEvaluations, {"steps"}, "eval.every_steps", "It is the number of steps."},
      {kEvaluations,
       {"no", "none", "false", "never"},
       "data.eval",
       "Without it there is no evaluation."},
      {{"logging_strategy"},
       {"epoch", "steps"},
       "logging.every_steps",
       "It is the number of steps."},
  };
  return kLines;
}

struct MemberLine {
  std::vector<const char*> names;
  const char* hint;
};

/// What other trainers call columns, in data.columns and in the columns of an entry.
const std::vector<MemberLine>& column_names() {
  static const std::vector<MemberLine> kLines = {
      {{"query", "context"}, "Its name here is input; what goes before it is instruction."},
      {{"response", "answer"},
       "Its name here is output, beside instruction; of a prompt without a template, completion."},
      {{"question", "human"}, "Its name here is instruction; the answer is output."},
      {{"conversation", "dialog", "dialogue", "chat"},
       "The name here stands first: messages: NAME_IN_THE_FILE."},
      {{"role_tag", "from", "speaker"}, "Its name here is role."},
      {{"content_tag", "value"}, "Its name here is content."},
      {{"user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"},
       "The words human, gpt, observation and function_call are known in sharegpt's form; others "
       "are named by data.roles: {user: WORD, assistant: WORD}."},
      {{"chosen", "rejected", "ranking", "kto_tag"}, "Training on preferences is not built."},
      {{"images", "videos", "audios"}, "Text alone is read."},
  };
  return kLines;
}

/// Of data.roles and of the roles of an entry.
constexpr const char* kRoleFirst =
    "The template's name stands first, then the words of the files: {assistant: WORD}.";

/// What other trainers write in an entry of a list of data sets.
const std::vector<MemberLine>& source_members() {
  static const std::vector<MemberLine> kLines = {
      {{"type", "ds_type", "formatting", "prompt_style", "conversation"},
       "What a row is its own keys say, or columns: docs/data.md lists them."},
      {{"field_messages", "field_instruction", "field_input", "field_output", "field_tools",
        "field_system", "message_property_mappings", "message_field_role", "message_field_content",
        "tags", "column_mapping", "field_human", "field_model"},
       "Their names here are columns: {messages: dialog, role: from, content: value}, our name and "
       "then the file's."},
      {{"split", "data_files", "data_dir", "revision", "file", "files", "filename", "data_path"},
       "path names the files: a glob of those of the split."},
      {{"probability", "ratio", "proportion", "fraction", "sampling_weight"},
       "Its name here is weight."},
      {{"shards", "num_samples", "max_samples", "num_rows"},
       "Its name here is subset: 5% of the rows, or 1000 of them."},
      {{"epochs", "repeats", "num_repeats", "oversample"}, "Its name here is repeat."},
      {{"field", "text_key", "text_column"}, "Its name here is columns: {text: KEY}."},
      {{"chat_template"}, "data.chat_template is one for all sources."},
      {{"train_on", "train_on_inputs", "roles_to_train"}, "data.train_on is one for all sources."},
  };
  return kLines;
}

bool holds(const std::vector<const char*>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string said_of_member(const std::vector<MemberLine>& lines, const std::string& name) {
  for (const MemberLine& line : lines) {
    if (holds(line.names, normal(name))) return line.hint;
  }
  return "";
}

std::string said_of_given(const std::string& name, const std::string& value) {
  if (value.empty()) return "";
  for (const GivenLine& line : given_names()) {
    if (holds(line.names, name) && holds(line.values, normal(value)))
      return sentence({line.path, line.note});
  }
  return "";
}

// Keys, then sections, of that last part, wherever they stand: "eval.every_steps or
// logging.every_steps".
std::string namesakes(const std::string& name) {
  std::vector<std::string> paths;
  for (const Key& key : keys()) {
    if (key.name() == name) paths.push_back(key.path);
  }
  for (const Section& section : sections()) {
    if (!section.path.empty() && last_part(section.path) == name) paths.push_back(section.path);
  }
  return paths.empty() ? "" : cat("Did you mean ", join(paths, " or "), "?");
}

// A typing error in one part of the path: in a name of the section that it stands in, or, where the
// section is the misspelt one (--set paralel.tp_size=2), in that.
std::string typing_error(const std::string& path) {
  std::string parent = parent_of(path);
  while (!find_section(parent)) parent = parent_of(parent);
  const size_t begin = parent.empty() ? 0 : parent.size() + 1;
  const std::string name = path.substr(begin, path.find('.', begin) - begin);
  std::string meant = nearest_word(name, names_in(parent));
  if (meant.empty()) return "";
  if (!parent.empty()) meant = cat(parent, ".", meant);
  const std::string below = path.substr(begin + name.size());  // ".tp_size", or ""
  return cat("Did you mean ", meant, find_key(meant + below) ? below : "", "?");
}

// A typing error in the name of a key of another section.
std::string typing_error_elsewhere(const std::string& name) {
  std::vector<std::string> names;
  for (const Key& key : keys()) {
    if (std::find(names.begin(), names.end(), key.name()) == names.end()) {
      names.push_back(key.name());
    }
  }
  const std::string meant = nearest_word(name, names);
  return meant.empty() ? "" : namesakes(meant);
}

struct WordLine {
  const char* key;  // a path, or the last part of one
  std::vector<const char*> words;
  const char* ours;  // "" where there is none
  const char* note;
};

const std::vector<WordLine>& foreign_words() {
  static const std::vector<WordLine> kLines = {
      {"dtype", {"bfloat16", "torch.bfloat16", "bf16_mixed", "true"}, "bf16", ""},
      {"dtype", {"float32", "torch.float32", "float", "single", "false"}, "fp32", ""},
      {"dtype",
       {"fp16", "float16", "torch.float16", "half"},
       "",
       "fp16 is not built: bf16 takes its place."},
      {"dtype", {"tf32"}, "", "TF32 is not built: bf16 is the faster type."},
      {"device", {"gpu", "nvidia", "cuda:0"}, "cuda", ""},
      {"recompute", {"true", "on", "block", "uniform", "yes"}, "full", ""},
      {"recompute", {"false", "off", "no"}, "none", ""},
      {"tp_overlap", {"true", "yes"}, "auto", ""},
      {"dp_overlap", {"true", "yes"}, "auto", ""},
      {"packing", {"true", "bfd", "best_fit_decreasing"}, "best_fit", ""},
      {"packing", {"false"}, "none", ""},
      {"packing", {"wrapped", "concat"}, "stream", ""},
      {"format", {"json", "ndjson"}, "jsonl", ""},
      {"format", {"txt", "plain"}, "text", ""},
      {"format",
       {"chat", "conversation", "conversations", "chat_template", "sharegpt", "alpaca", "messages",
        "chatml", "completion", "instruction"},
       "jsonl",
       "Which kind a row is its keys say."},
      {"nonfinite", {"raise", "error", "true"}, "stop", ""},
      {"nonfinite", {"ignore", "false"}, "skip", ""},
      {"optimizer.type",
       {"adam", "adamw_torch", "adamw_torch_fused", "adamw_hf", "fusedadam", "adamw_apex_fused"},
       "adamw",
       ""},
      {"optimizer.type",
       {"adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"},
       "adamw",
       "moments_dtype bf16 halves what it keeps; 8 bits are not built."},
      {"scheduler.type",
       {"constant_with_warmup", "warmuplr"},
       "constant",
       "scheduler.warmup_steps gives the warm-up."},
      {"scheduler.type",
       {"cosine_with_min_lr", "warmupcosinelr"},
       "cosine",
       "scheduler.min_lr is where it ends."},
      {"scheduler.type", {"warmupdecaylr"}, "linear", "scheduler.warmup_steps gives the warm-up."},
      {"scheduler.type", {"warmup_stable_decay", "trapezoidal"}, "wsd", ""},
      {"scheduler.type",
       {"cosine_with_restarts", "polynomial", "inverse_sqrt", "inverse_square_root",
        "reduce_lr_on_plateau", "one_cycle", "onecycle"},
       "",
       "That course is not built."},
      {"model_type", {"llama2", "llama3", "llama3.1", "llama3.2", "tinyllama"}, "llama", ""},
      {"model_type", {"qwen2.5", "qwen2_5"}, "qwen2", ""},
  };
  return kLines;
}

bool is_for(const WordLine& line, const Key& key) {
  if (key.path == line.key || key.name() == line.key) return true;
  return std::string(line.key) == "dtype" && key.name().ends_with("_dtype");
}

// true and false where a key has words of its own for them.
std::string switch_word(const Key& key, const std::string& word) {
  const auto allows = [&](const std::string& candidate) {
    return std::find(key.allowed.begin(), key.allowed.end(), candidate) != key.allowed.end();
  };
  if ((word == "true" || word == "yes") && allows("off")) return allows("on") ? "on" : "auto";
  if ((word == "false" || word == "no") && allows("off")) return "off";
  return "";
}

}  // namespace

std::string exact_hint_for_name(const std::string& path, const std::string& value) {
  const std::string whole = normal(path);
  if (parent_of(whole) == "data.roles" && typing_error(path).empty()) return kRoleFirst;
  if (parent_of(whole) == "data.columns") {
    const std::string hint = said_of_member(column_names(), last_part(whole));
    if (!hint.empty()) return hint;
  }
  std::string hint = said_of_given(whole, value);
  if (hint.empty()) hint = said_of_given(last_part(whole), value);
  if (hint.empty()) hint = said_of_foreign(whole);
  if (hint.empty()) hint = namesakes(last_part(whole));
  if (hint.empty()) hint = said_of_foreign(last_part(whole));
  return hint;
}

std::string hint_for_section(const std::string& path, const std::string& value) {
  return said_of_given(path, value);
}

std::string hint_for_name(const std::string& path, const std::string& value) {
  std::string hint = exact_hint_for_name(path, value);
  if (hint.empty()) hint = typing_error(path);
  if (hint.empty()) hint = typing_error_elsewhere(last_part(path));
  return hint;
}

std::string hint_for_member(const std::string& list, const std::string& name) {
  if (!list.starts_with("data.")) return "";
  if (list.ends_with(".roles"))
    return nearest_word(name, names_in("data.roles")).empty() ? kRoleFirst : "";
  return said_of_member(list.ends_with(".columns") ? column_names() : source_members(), name);
}

std::string hint_for_word(const Key& key, const std::string& word) {
  const std::string written = normal(word);
  for (const WordLine& line : foreign_words()) {
    if (!is_for(line, key)) continue;
    if (!holds(line.words, written)) continue;
    const std::string name = line.ours[0] == '\0' ? "" : cat("Its name here is ", line.ours, ".");
    return cat(name, name.empty() || line.note[0] == '\0' ? "" : " ", line.note);
  }
  const std::string meant = switch_word(key, written);
  if (!meant.empty()) return cat("Its name here is ", meant, ".");
  const std::string nearest = nearest_word(word, key.allowed);
  return nearest.empty() ? "" : cat("Did you mean ", nearest, "?");
}

}  // namespace tptrain::config
