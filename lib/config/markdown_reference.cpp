// docs/configuration.md, from the list of keys.
#include <sstream>

#include "base/text.h"
#include "config/keys.h"
#include "config/parse.h"

namespace tptrain::config {
namespace {

std::string type_name(Type type) {
  switch (type) {
    case Type::text:
      return "text";
    case Type::path:
      return "path";
    case Type::integer:
    case Type::seed:
      return "integer";
    case Type::real:
      return "number";
    case Type::boolean:
      return "true, false";
    case Type::betas:
      return "two numbers";
    case Type::words:
      return "list of texts";
    case Type::sources:
      return "list of globs";
    case Type::source_sets:
      return "list of globs, or lists by name";
    case Type::groups:
      return "list of groups";
  }
  return "";
}

std::string values_cell(const Key& key) {
  if (!key.allowed.empty()) {
    std::vector<std::string> words;
    for (const std::string& word : key.allowed) words.push_back(cat("`", word, "`"));
    return key.type == Type::words ? cat("list of ", join(words)) : join(words);
  }
  std::string cell = key.any_alone       ? cat("text or ", type_name(key.type))
                     : key.alone.empty() ? type_name(key.type)
                                         : cat("`", join(key.alone), "` or ", type_name(key.type));
  const Limits& limits = key.limits;
  if (const std::vector<int64_t> few = few_values(limits); !few.empty()) return join(few);
  if (limits.at_least) cell += cat(", at least ", *limits.at_least);
  if (limits.above) cell += cat(", above ", *limits.above);
  if (limits.below) cell += cat(", below ", *limits.below);
  if (key.type == Type::seed) cell += ", at least 0";
  if (key.type == Type::betas) cell += " from 0 to below 1";
  return cell;
}

std::string default_cell(const Key& key) {
  if (key.presence == Presence::required) return "**required**";
  if (key.presence == Presence::absent) return key.hint.empty() ? "none" : key.hint;
  const std::string value = cat("`", yaml_text(*default_value(key)), "`");
  return key.hint.empty() ? value : cat(value, ": ", key.hint);
}

/// A | within a cell of a table would end it, also within code.
std::string cell(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

void write_alternatives(const std::string& section, std::ostream& out) {
  for (const Alternatives& group : alternatives()) {
    if (group.members[0].substr(0, group.members[0].rfind('.')) != section) continue;
    std::vector<std::string> names;
    for (const std::string& member : group.members) {
      names.push_back(cat("`", member.substr(section.size() + 1), "`"));
    }
    out << (group.one_is_required ? "Exactly one of " : "At most one of ") << join(names, " and ")
        << ".\n\n";
  }
}

constexpr const char* kReferenceHead =
    R"(<!-- Generated: tptrain schema --markdown > docs/configuration.md. Edit lib/config/keys_*.cpp instead. -->
# The run file

A run is described by one YAML file: `tptrain --config run.yaml`. Every key that exists stands below, under its section; any other
key is an error, as are a key given twice, a value of another type (`3.0` or `"3"` for an integer, `yes` for `true`) and `null`. All
errors of a file are reported at once, each with `file:line:column`. `tptrain schema` prints the JSON Schema, for editors.

In a path `~` at the start is the home directory. `$` is refused: no shell reads the file, so that a variable would stay as it is.
Names that DeepSpeed, Megatron-LM, torchtitan, axolotl, LLaMA-Factory or the Hugging Face Trainer give a key are refused with the name it has here.

```yaml
run_dir: runs/quickstart
model:
  architecture: {hidden_size: 256, intermediate_size: 688, num_hidden_layers: 4, num_attention_heads: 8}
parallel: {tp_size: 2, dp_size: 2}
data:
  train: ["corpus/*.txt"]
train: {max_steps: 100, global_batch_size: 8}
```

## Changing one value: `--set`

`--set section.key=value` overrides one value of the file; it may be repeated, and of two for the same key the later counts
(`--section.key=value` is the same). The value is read as YAML: `--set train.max_steps=200`, `--set 'data.train=[a.txt, b.txt]'`, `--set model.architecture.hidden_size=64`,
`--set 'optimizer.groups=[{match: "*.bias", weight_decay: 0.1}]'`. A list takes the place of the file's whole list; a section, as in
`--set 'parallel={tp_size: 2}'`, changes the keys it names and no other.

Where a key excludes another (`max_steps` and `epochs`; `global_batch_size` and `grad_accum_steps`; `model.path` and `model.architecture`), an override of the one
drops the other from the file: `--set train.grad_accum_steps=2` takes the place of the file's `global_batch_size`. Overriding both
is an error.

The values that a run uses, defaults included, are written to `run_dir/resolved_config.yaml`, which is a run file again.
)";

}  // namespace

std::string markdown_reference() {
  std::ostringstream out;
  out << kReferenceHead;
  for (const Section& section : sections()) {
    out << "\n## " << (section.path.empty() ? "Top level" : cat("`", section.path, "`")) << "\n\n";
    out << section.doc << "\n\n";
    write_alternatives(section.path, out);
    out << "| key | value | default | meaning |\n|---|---|---|---|\n";
    for (const Key& key : keys()) {
      if (key.section() != section.path) continue;
      out << "| `" << key.name() << "` | " << values_cell(key) << " | " << default_cell(key)
          << " | " << cell(key.doc) << " |\n";
    }
  }
  return std::move(out).str();
}

}  // namespace tptrain::config
