// A chat template as a tree. Private to this folder.
//   lex    source -> tokens   (white space is settled here: it is a matter of how tags are written)
//   parse  tokens -> statements
//   settle_scopes  which variables hide which
// Both follow Jinja 3.1's lexer and parser, with trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat_template/template_value.h"

namespace tptrain::chat_template::jinja {

/// A fault of the template; `at` is the offset in the source with its line ends made "\n".
struct TemplateError {
  size_t at;
  std::string message;
};

struct Token {
  enum class Kind {
    text,
    variable_begin,
    variable_end,
    block_begin,
    block_end,
    name,
    string,
    integer,
    real,
    symbol,
    end,
  };
  Kind kind = Kind::end;
  size_t at = 0;
  std::string text;  // of strings the value, without quotes
  int64_t integer = 0;
  double real = 0;
};

struct Expression {
  enum class Kind {
    constant,
    name,       // text
    attribute,  // parts[0] . text
    item,       // parts[0] [parts[1]]
    slice,      // parts[0] [parts[1]:parts[2]:parts[3]], each may be null
    call,       // parts[0] (parts[1..], named)
    spread,     // *parts[0], the last argument without a name
    filter,     // parts[0] | text(parts[1..], named)
    test,       // parts[0] is text(parts[1..], named)
    unary,      // text: "-", "+", "not"
    binary,     // text: and or + - * / // %
    concat,     // parts joined
    condition,  // parts[0] ? parts[1] : parts[2], the last may be null
    compare,    // parts[0] operators[0] parts[1] operators[1] ...
    list,
    tuple,
    dict,  // parts: key, value, key, value
  };
  Kind kind;
  size_t at;
  std::string text;
  Value constant;
  std::vector<std::unique_ptr<Expression>> parts;
  std::vector<std::pair<std::string, std::unique_ptr<Expression>>> named;
  std::vector<std::string> operators;
  int depth = 1;
};
using ExpressionPtr = std::unique_ptr<Expression>;

struct Statement;
using Body = std::vector<Statement>;

struct Statement {
  enum class Kind {
    text,        // text
    output,      // expression
    if_chain,    // branches, otherwise
    for_loop,    // targets, expression, condition (may be null), body, otherwise
    set,         // targets, expression
    set_block,   // targets[0], body
    set_member,  // targets[0] . text, expression
    macro,       // text, parameters, body
    scope,       // body: {% generation %}
    break_loop,
    continue_loop,
  };
  Kind kind;
  size_t at;
  std::string text = {};
  std::vector<std::string> targets = {};
  bool unpacks = false;  // a, b = ...
  ExpressionPtr expression = {};
  ExpressionPtr condition = {};
  std::vector<std::pair<ExpressionPtr, Body>> branches = {};
  std::vector<std::pair<std::string, ExpressionPtr>> parameters = {};  // the default may be null
  Body body = {};
  Body otherwise = {};
  std::vector<std::string> hidden = {};            // of the scope of body, see settle_scopes
  std::vector<std::string> hidden_otherwise = {};  // of a loop's
};

/// As Jinja sees it: line ends made "\n", one at the very end dropped.
std::string normalize_source(std::string_view source);
/// Both throw TemplateError.
std::vector<Token> lex(const std::string& source);
Body parse(const std::vector<Token>& tokens);
/// Fills in `hidden` of all scopes inside; returns that of the template itself.
std::vector<std::string> settle_scopes(Body& body);

}  // namespace tptrain::chat_template::jinja
