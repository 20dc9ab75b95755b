// Runs the tree of a chat template. Private to this folder.
//   template_statements.cpp    statements, scopes, bounds
//   template_expressions.cpp   expressions
//   template_filters.cpp       filters and tests
//   template_methods.cpp       methods of strings and dictionaries, functions
// One object renders once.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_template/template_syntax.h"
#include "chat_template/template_value.h"

namespace tptrain::chat_template::jinja {

/// The template's own raise_exception.
struct Refusal {
  size_t at;
  std::string message;
};

/// Variables of one scope: the template, one turn of a loop, a macro, a block.
struct Frame {
  Frame* parent = nullptr;
  std::vector<std::pair<std::string, Value>> variables = {};
  const std::vector<std::string>* hidden = nullptr;  // names that are undefined until they are set
};

struct Arguments {
  std::vector<Value> values;
  std::vector<std::pair<std::string, Value>> named;
};

class Evaluator {
 public:
  /// `messages`, a list of dictionaries, is what the template may be at while it writes.
  Evaluator(int64_t time_seconds, const Value& messages);

  /// Throws TemplateError and Refusal.
  SourcedText run(const Body& body, const std::vector<std::string>& hidden,
                  std::vector<std::pair<std::string, Value>> variables);

 private:
  enum class Flow { on, break_loop, continue_loop };

  /// Counts what stands on the stack while it lives.
  struct Level {
    explicit Level(Evaluator& evaluator) : evaluator(evaluator) {
      if (++evaluator.depth_ > kDeepest) {
        --evaluator.depth_;
        throw ValueError{"macros calling one another too deeply"};
      }
    }
    ~Level() { --evaluator.depth_; }
    static constexpr int kDeepest = 400;
    Evaluator& evaluator;
  };

  // statements
  Flow run_body(const Body& body);
  Flow run_statement(const Statement& statement);
  Flow run_if(const Statement& statement);
  void run_loop(const Statement& statement);
  void assign(const Statement& statement, const Value& value);
  void set_member(const Statement& statement);
  SourcedText capture(const Body& body, Frame& frame);
  void set(const std::string& name, Value value);
  void write(const SourcedText& text);
  bool quotes_later_message(const SourcedText& text) const;
  /// Which of the messages a value is, or -1.
  int32_t message_of(const Value& value) const;

  // expressions
  /// Throws where it is a text that `safe` has marked.
  Value evaluate(const Expression& e);
  /// Of what is written, joined by ~ or kept: such a text goes through it as it is.
  Value evaluate_for_text(const Expression& e);
  Value evaluate_parts(const Expression& e);
  std::vector<Value> evaluate_all(const Expression& e, size_t from);
  Arguments arguments(const Expression& call);
  Value variable(const std::string& name);
  Value attribute(const Value& of, const std::string& name);
  Value item(const Value& of, const Value& key);
  Value slice(const Expression& e);
  Value unary(const std::string& operation, const Value& value);
  Value binary(const Expression& e);
  Value add(const Value& a, const Value& b);
  Value arithmetic(const std::string& operation, const Value& a, const Value& b);
  Value compare(const Expression& e);
  bool compare_pair(const std::string& operation, const Value& a, const Value& b);
  Value call(const Expression& e);
  Value call_macro(const Macro& macro, Arguments arguments);

  // what can be called
  Value function(size_t at, std::string_view name, Arguments arguments);
  Value filter(const std::string& name, const Value& value, const Arguments& arguments);
  Value joined(const Value& value, const std::vector<Value>& given);
  /// Of those without arguments.
  Value plain_filter(const std::string& name, const Value& value);
  Value filter_list(const std::string& name, const Value& value, const Arguments& arguments);
  Value to_json(const Value& value, const Arguments& arguments);
  bool test(const std::string& name, const Value& value, const std::vector<Value>& arguments);
  Value method(const Value& of, const std::string& name, const Arguments& arguments);
  Value text_method(const SourcedText& of, const std::string& name,
                    const std::vector<Value>& arguments);
  Value dict_method(const DictData& dict, const std::string& name,
                    const std::vector<Value>& arguments);
  std::string time_text(const std::string& format) const;

  /// Counts work and stops the template where it is too much.
  void spend(uint64_t work);
  Value text(SourcedText text);

  int64_t time_seconds_;
  uint64_t spent_ = 0;
  int depth_ = 0;
  Frame* frame_ = nullptr;
  SourcedText* out_ = nullptr;
  std::map<const DictData*, int32_t> messages_;
  // Of the turn of a loop: the message it is at, and whether its loop goes over messages.
  int32_t message_ = -1;
  bool in_turn_ = false;
};

/// Names that Python's type of `value` has as attributes, so that they are no keys.
bool is_python_attribute(const Value& value, std::string_view name);
/// The function of that name, or undefined.
Value function_named(std::string_view name);

}  // namespace tptrain::chat_template::jinja
