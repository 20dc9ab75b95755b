// Tokens of a chat template -> expressions: each level of the grammar as in Jinja's parser, by its
// name there. Statements are template_parser.cpp's. Private to this folder.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.h"
#include "chat_template/template_syntax.h"

namespace tptrain::chat_template::jinja {

/// How errors call a token.
std::string spelled(const Token& token);

class ExpressionParser {
 protected:
  explicit ExpressionParser(const std::vector<Token>& tokens) : tokens_(tokens) {}

  using Kind = Expression::Kind;
  static constexpr int kDeepestExpression = 100;

  // ---- tokens
  const Token& here() const { return tokens_[next_]; }
  const Token& ahead() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  const Token& take() {
    const Token& token = tokens_[next_];
    if (next_ + 1 < tokens_.size()) ++next_;
    return token;
  }
  [[noreturn]] void fail(size_t at, std::string message) const {
    throw TemplateError{at, std::move(message)};
  }
  bool at_name(std::string_view name) const {
    return here().kind == Token::Kind::name && here().text == name;
  }
  bool at_symbol(std::string_view symbol) const {
    return here().kind == Token::Kind::symbol && here().text == symbol;
  }
  bool skip_name(std::string_view name) {
    if (!at_name(name)) return false;
    take();
    return true;
  }
  bool skip_symbol(std::string_view symbol) {
    if (!at_symbol(symbol)) return false;
    take();
    return true;
  }
  void expect_symbol(std::string_view symbol) {
    if (!skip_symbol(symbol)) {
      fail(here().at, cat("expected \"", symbol, "\", got ", spelled(here())));
    }
  }
  std::string expect_name(const char* of_what) {
    if (here().kind != Token::Kind::name) {
      fail(here().at, cat("expected ", of_what, ", got ", spelled(here())));
    }
    return take().text;
  }
  void expect_block_end() {
    if (here().kind != Token::Kind::block_end) {
      fail(here().at, cat("expected \"%}\", got ", spelled(here())));
    }
    take();
  }

  // ---- expressions
  ExpressionPtr make(Kind kind, size_t at, std::string text = "") const;
  void add(Expression& to, ExpressionPtr part) const;
  ExpressionPtr constant(Value value, size_t at) const;
  template <typename... Parts>
  ExpressionPtr make_of(Kind kind, size_t at, std::string text, Parts... parts) const {
    ExpressionPtr made = make(kind, at, std::move(text));
    (add(*made, std::move(parts)), ...);
    return made;
  }
  /// Counts the calls that stand on the stack while it lives.
  struct Level {
    explicit Level(ExpressionParser& parser) : parser(parser) {
      if (++parser.level_ > kDeepestExpression) {
        parser.fail(parser.here().at, "an expression nested too deeply");
      }
    }
    ~Level() { --parser.level_; }
    ExpressionParser& parser;
  };
  ExpressionPtr expression(bool with_condition = true);
  /// parse_tuple: expressions with commas between them, or one alone. `ends`: names that end it.
  ExpressionPtr tuple(const std::vector<std::string>& ends, bool with_condition);
  ExpressionPtr tuple_until(const std::vector<std::string>& ends, bool with_condition,
                            bool parentheses);
  ExpressionPtr condition();
  ExpressionPtr logical_or();
  ExpressionPtr logical_and();
  ExpressionPtr logical_not();
  ExpressionPtr compare();
  ExpressionPtr sum();
  ExpressionPtr concat();
  ExpressionPtr product();
  ExpressionPtr unary(bool with_filter);
  ExpressionPtr primary();
  ExpressionPtr postfix(ExpressionPtr made);
  ExpressionPtr subscript(ExpressionPtr of, size_t at);
  void arguments(Expression& call);
  ExpressionPtr filters(ExpressionPtr made);
  ExpressionPtr test(ExpressionPtr of, size_t at);

  const std::vector<Token>& tokens_;
  size_t next_ = 0;
  int level_ = 0;   // of expressions that stand on the stack
  int macros_ = 0;  // around this place
};

}  // namespace tptrain::chat_template::jinja
