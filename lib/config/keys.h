// The one list of keys of a run file. Parser, checks, JSON Schema, markdown reference and
// resolved_config.yaml are all read off it, so that a key is added in one place: its member in
// run_config.h and its entry in keys_*.cpp. Private to this folder and its tests.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "config/run_config.h"

namespace tptrain::config {

// A path is a text whose leading ~ is read as the home directory. Sources are a list of globs,
// source_sets such a list or several by their names.
enum class Type {
  text,
  path,
  integer,
  seed,
  real,
  boolean,
  betas,
  words,
  sources,
  source_sets,
  groups
};
using Value =
    std::variant<std::string, int64_t, uint64_t, double, bool, std::vector<double>,
                 std::vector<std::string>, std::vector<DataSource>, std::vector<ParameterGroup>>;

enum class Presence {
  defaulted,  // left out: the value that run_config.h initializes the member with
  required,   // must be given (a key of model.architecture: where that section is given)
  absent,  // may be left out, and has then no value (the member is 0 or "", or an empty optional)
};

struct Limits {
  std::optional<int64_t> at_least = {};
  std::optional<int64_t> above = {};
  std::optional<int64_t> at_most = {};
  std::optional<int64_t> below = {};
};

/// The integers within the limits where they are few enough to be listed, as 0, 1, 2, 3.
std::vector<int64_t> few_values(const Limits& limits);

struct Key {
  std::string path;  // "parallel.tp_size"
  Type type = Type::text;
  Presence presence = Presence::defaulted;
  Limits limits = {};
  std::vector<std::string> allowed = {};  // of a text, and of each of a list of words; empty: any
                                          // text but the empty one
  std::vector<std::string> alone = {};    // of a list of words: those that may stand for a list
                                          // of themselves, without brackets
  bool any_alone = false;                 // likewise: any of them
  std::string doc;                        // one sentence
  std::string hint = {};  // defaulted: what the default stands for; required: an example; absent:
                          // what then happens
  /// The member's value; nothing where it has none (Presence::absent, or of a section that may be
  /// left out and was: model.architecture, adapter).
  std::function<std::optional<Value>(const RunConfig&)> get = {};
  /// `value` holds the alternative that belongs to `type`.
  std::function<void(RunConfig&, const Value&)> set = {};

  std::string section() const;  // "parallel"; "" for a key of the top level
  std::string name() const;     // "tp_size"
};

/// A mapping in the run file. The top level is the section "".
struct Section {
  std::string path;
  std::string doc;
};

/// Keys or sections of which a file gives one. An override of one replaces the others of the file.
struct Alternatives {
  std::vector<std::string> members;  // paths
  bool one_is_required = false;
  std::string example;
};

/// In the order of the reference.
const std::vector<Section>& sections();
/// The sections that a config may have or not; they are there as soon as one of their keys is.
const std::vector<std::string>& optional_sections();
const std::vector<Key>& keys();
const std::vector<Alternatives>& alternatives();

const Key* find_key(const std::string& path);
const Section* find_section(const std::string& path);
/// Names of the keys and sections directly in a section: "tp_size"; for "" "run_dir", "model", ...
std::vector<std::string> names_in(const std::string& section);
/// True for "a.b" and everything below it, as "a.b.c".
bool is_at_or_below(const std::string& path, const std::string& ancestor);

/// The value as one YAML scalar or flow list that parses back to it: "2", "1e-5", "[0.9, 0.95]".
std::string yaml_text(const Value& value);
bool is_control(char c);
/// A text of the file for a message: its control characters as \x1b, and only its beginning where
/// it is long.
std::string shown(const std::string& text);
/// The default, where the key has one.
std::optional<Value> default_value(const Key& key);

}  // namespace tptrain::config
