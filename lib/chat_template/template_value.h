// The values of a chat template: those of JSON, plus what Jinja has beside them (undefined, tuples,
// namespaces, macros, the loop). Values never change, except namespaces. Private to this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "chat_template/sourced_text.h"

namespace tptrain::chat_template::jinja {

/// What a template or a value does that cannot be done; the evaluator adds the place.
struct ValueError {
  std::string message;
};

class Value;
struct Frame;
struct Statement;

struct Undefined {
  std::string name;  // what was looked for
};
struct None {};
using Text = std::shared_ptr<const SourcedText>;
/// A text that `safe` has marked: in Python a type of its own, of which + and methods escape what
/// they are given. The evaluator lets it into outputs, ~ and variables alone.
struct Safe {
  Text text;
};
struct ListData {
  /// Python has several kinds of lists, and templates can tell: a generator is true even when
  /// empty, has no length and can be gone over once; a view (of a dictionary, a range) has no
  /// entries by number.
  enum class Shape { list, tuple, view, generator };
  std::vector<Value> items;
  Shape shape = Shape::list;
  int depth = 1;
  uint64_t weight = 1;         // values and eighths of text inside, each as often as it is met
  mutable bool spent = false;  // of a generator
};
using List = std::shared_ptr<const ListData>;
struct DictData {
  std::vector<std::pair<std::string, Value>>
      items;  // in the order of insertion, as Python keeps it
  int depth = 1;
  uint64_t weight = 1;
};
using Dict = std::shared_ptr<const DictData>;
struct NamespaceData;
using Namespace = std::shared_ptr<NamespaceData>;
/// A function that every template has: raise_exception, range, ...
struct Function {
  const char* name;
};
struct Macro {
  const Statement* statement;
  Frame* frame;  // in which it is defined; it cannot leave it
};
struct LoopData {
  const std::vector<Value>* items;
  int64_t index = 0;
};
struct Loop {
  const LoopData* data;
};

class Value {
 public:
  using Variant = std::variant<Undefined, None, bool, int64_t, double, Text, Safe, List, Dict,
                               Namespace, Function, Macro, Loop>;
  Value() = default;
  Value(Undefined value) : variant_(std::move(value)) {}
  Value(None value) : variant_(value) {}
  Value(bool value) : variant_(value) {}
  Value(int64_t value) : variant_(value) {}
  Value(double value) : variant_(value) {}
  Value(Text value) : variant_(std::move(value)) {}
  Value(Safe value) : variant_(std::move(value)) {}
  Value(List value) : variant_(std::move(value)) {}
  Value(Dict value) : variant_(std::move(value)) {}
  Value(Namespace value) : variant_(std::move(value)) {}
  Value(Function value) : variant_(value) {}
  Value(Macro value) : variant_(value) {}
  Value(Loop value) : variant_(value) {}
  template <typename T>
  Value(T*) = delete;  // would be a bool

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&variant_);
  }
  template <typename T>
  bool is() const {
    return std::holds_alternative<T>(variant_);
  }
  bool is_number() const { return is<int64_t>() || is<double>() || is<bool>(); }
  /// Of a number only.
  double real() const;
  /// Of int64_t and bool only.
  int64_t integer() const;
  const std::string& text() const { return sourced().bytes(); }
  const SourcedText& sourced() const { return **as<Text>(); }

 private:
  Variant variant_;
};

struct NamespaceData {
  std::vector<std::pair<std::string, Value>> attributes;
};

Value make_text(SourcedText text);
/// Throws ValueError: nested too deeply, or holds what cannot be stored.
Value make_list(std::vector<Value> items, ListData::Shape shape = ListData::Shape::list);
/// A later entry replaces an earlier one with its key. Throws as make_list.
Value make_dict(std::vector<std::pair<std::string, Value>> items);
/// `source` becomes that of every text inside. Throws ValueError: an integer of more than 64 bits.
Value value_of(const nlohmann::ordered_json& json, Source source = {});

const Value* find(const DictData& dict, std::string_view key);
/// "a string", "none", "a list": what messages call it.
std::string kind_of(const Value& value);
/// How much work it is to go over all of a value; saturates.
uint64_t weight_of(const Value& value);
/// The shape of a list, if it is one.
std::optional<ListData::Shape> shape_of(const Value& value);
bool truth_of(const Value& value);
/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's <; throws ValueError where it has none.
bool less(const Value& a, const Value& b);
/// Python's `a in b`.
bool contains(const Value& b, const Value& a);
/// Python's str(); throws ValueError for lists and dictionaries.
SourcedText text_of(const Value& value);
/// json.dumps(ensure_ascii=False); indent -1: on one line.
SourcedText json_of(const Value& value, int indent);
/// What a for loop goes over: entries, keys, characters. Spends a generator.
std::vector<Value> items_of(const Value& value);

/// Python's str.isspace() of the character at the begin or end of `text`: its bytes, else 0.
size_t space_at_begin(std::string_view text);
size_t space_at_end(std::string_view text);
/// Characters of valid UTF-8, each as its bytes.
std::vector<std::string_view> characters_of(std::string_view text);

}  // namespace tptrain::chat_template::jinja
