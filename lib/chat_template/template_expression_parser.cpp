#include "chat_template/template_expression_parser.h"

#include <algorithm>

#include "base/text.h"

namespace tptrain::chat_template::jinja {

std::string spelled(const Token& token) {
  switch (token.kind) {
    case Token::Kind::end:
      return "the end of the template";
    case Token::Kind::block_end:
      return "\"%}\"";
    case Token::Kind::variable_end:
      return "\"}}\"";
    case Token::Kind::string:
      return "a string";
    case Token::Kind::integer:
    case Token::Kind::real:
      return "a number";
    default:
      return cat("\"", token.text, "\"");
  }
}

ExpressionPtr ExpressionParser::make(Kind kind, size_t at, std::string text) const {
  auto made = std::make_unique<Expression>();
  made->kind = kind;
  made->at = at;
  made->text = std::move(text);
  return made;
}

void ExpressionParser::add(Expression& to, ExpressionPtr part) const {
  if (part) to.depth = std::max(to.depth, part->depth + 1);
  if (to.depth > kDeepestExpression) fail(to.at, "an expression nested too deeply");
  to.parts.push_back(std::move(part));
}

ExpressionPtr ExpressionParser::constant(Value value, size_t at) const {
  ExpressionPtr made = make(Kind::constant, at);
  made->constant = std::move(value);
  return made;
}

ExpressionPtr ExpressionParser::expression(bool with_condition) {
  const Level level(*this);
  return with_condition ? condition() : logical_or();
}

ExpressionPtr ExpressionParser::tuple(const std::vector<std::string>& ends, bool with_condition) {
  return tuple_until(ends, with_condition, /*parentheses=*/false);
}

ExpressionPtr ExpressionParser::tuple_until(const std::vector<std::string>& ends,
                                            bool with_condition, bool parentheses) {
  const size_t at = here().at;
  const auto ended = [&] {
    return here().kind == Token::Kind::variable_end || here().kind == Token::Kind::block_end ||
           at_symbol(")") || std::any_of(ends.begin(), ends.end(), [&](const std::string& name) {
             return at_name(name);
           });
  };
  std::vector<ExpressionPtr> parts;
  bool is_tuple = false;
  while (true) {
    if (!parts.empty()) expect_symbol(",");
    if (ended()) break;
    parts.push_back(expression(with_condition));
    if (!at_symbol(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!parts.empty()) return std::move(parts[0]);
    if (!parentheses) fail(at, cat("expected an expression, got ", spelled(here())));
  }
  ExpressionPtr made = make(Kind::tuple, at);
  for (ExpressionPtr& part : parts) add(*made, std::move(part));
  return made;
}

ExpressionPtr ExpressionParser::condition() {
  ExpressionPtr value = logical_or();
  while (at_name("if")) {
    const size_t at = take().at;
    ExpressionPtr test = logical_or();
    ExpressionPtr otherwise;
    if (skip_name("else")) {
      const Level level(*this);
      otherwise = condition();
    }
    value =
        make_of(Kind::condition, at, "", std::move(test), std::move(value), std::move(otherwise));
  }
  return value;
}

ExpressionPtr ExpressionParser::logical_or() {
  ExpressionPtr left = logical_and();
  while (at_name("or")) {
    const size_t at = take().at;
    left = make_of(Kind::binary, at, "or", std::move(left), logical_and());
  }
  return left;
}

ExpressionPtr ExpressionParser::logical_and() {
  ExpressionPtr left = logical_not();
  while (at_name("and")) {
    const size_t at = take().at;
    left = make_of(Kind::binary, at, "and", std::move(left), logical_not());
  }
  return left;
}

ExpressionPtr ExpressionParser::logical_not() {
  if (!at_name("not")) return compare();
  const Level level(*this);
  const size_t at = take().at;
  return make_of(Kind::unary, at, "not", logical_not());
}

ExpressionPtr ExpressionParser::compare() {
  ExpressionPtr left = sum();
  ExpressionPtr chain;
  while (true) {
    const size_t at = here().at;
    std::string operation;
    for (const char* known : {"==", "!=", "<", "<=", ">", ">="}) {
      if (at_symbol(known)) operation = known;
    }
    if (!operation.empty()) {
      take();
    } else if (skip_name("in")) {
      operation = "in";
    } else if (at_name("not") && ahead().kind == Token::Kind::name && ahead().text == "in") {
      take();
      take();
      operation = "not in";
    } else {
      break;
    }
    if (!chain) chain = make_of(Kind::compare, at, "", std::move(left));
    chain->operators.push_back(operation);
    add(*chain, sum());
  }
  return chain ? std::move(chain) : std::move(left);
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concat();
  while (at_symbol("+") || at_symbol("-")) {
    const Token& token = take();
    left = make_of(Kind::binary, token.at, token.text, std::move(left), concat());
  }
  return left;
}

ExpressionPtr ExpressionParser::concat() {
  ExpressionPtr first = product();
  if (!at_symbol("~")) return first;
  ExpressionPtr joined = make_of(Kind::concat, here().at, "", std::move(first));
  while (skip_symbol("~")) add(*joined, product());
  return joined;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = unary(true);
  while (true) {
    if (at_symbol("**")) fail(here().at, "the operator ** is not built");
    if (!at_symbol("*") && !at_symbol("/") && !at_symbol("//") && !at_symbol("%")) return left;
    const Token& token = take();
    left = make_of(Kind::binary, token.at, token.text, std::move(left), unary(true));
  }
}

ExpressionPtr ExpressionParser::unary(bool with_filter) {
  const Level level(*this);
  ExpressionPtr made;
  if (at_symbol("-") || at_symbol("+")) {
    const Token& token = take();
    made = make_of(Kind::unary, token.at, token.text, unary(false));
  } else {
    made = primary();
  }
  made = postfix(std::move(made));
  return with_filter ? filters(std::move(made)) : std::move(made);
}

ExpressionPtr ExpressionParser::primary() {
  const Token& token = here();
  if (token.kind == Token::Kind::name) {
    take();
    if (token.text == "true" || token.text == "True") return constant(true, token.at);
    if (token.text == "false" || token.text == "False") return constant(false, token.at);
    if (token.text == "none" || token.text == "None") return constant(None{}, token.at);
    if (macros_ > 0 &&
        (token.text == "caller" || token.text == "varargs" || token.text == "kwargs")) {
      fail(token.at, cat(token.text, " of a macro is not built"));
    }
    return make(Kind::name, token.at, token.text);
  }
  if (token.kind == Token::Kind::string) {
    std::string text;
    while (here().kind == Token::Kind::string) text += take().text;
    return constant(make_text(std::move(text)), token.at);
  }
  if (token.kind == Token::Kind::integer) return constant(take().integer, token.at);
  if (token.kind == Token::Kind::real) return constant(take().real, token.at);
  if (skip_symbol("(")) {
    ExpressionPtr inside = tuple_until({}, true, /*parentheses=*/true);
    expect_symbol(")");
    return inside;
  }
  if (skip_symbol("[")) {
    ExpressionPtr list = make(Kind::list, token.at);
    while (!at_symbol("]")) {
      if (!list->parts.empty()) expect_symbol(",");
      if (at_symbol("]")) break;
      add(*list, expression());
    }
    take();
    return list;
  }
  if (skip_symbol("{")) {
    ExpressionPtr dict = make(Kind::dict, token.at);
    while (!at_symbol("}")) {
      if (!dict->parts.empty()) expect_symbol(",");
      if (at_symbol("}")) break;
      add(*dict, expression());
      expect_symbol(":");
      add(*dict, expression());
    }
    take();
    return dict;
  }
  fail(token.at, cat("expected an expression, got ", spelled(token)));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr made) {
  while (true) {
    const size_t at = here().at;
    if (skip_symbol(".")) {
      if (here().kind == Token::Kind::integer) {
        made = make_of(Kind::item, at, "", std::move(made), constant(take().integer, at));
      } else {
        const std::string name = expect_name("the name of an attribute");
        made = make_of(Kind::attribute, at, name, std::move(made));
      }
    } else if (skip_symbol("[")) {
      made = subscript(std::move(made), at);
    } else if (at_symbol("(")) {
      ExpressionPtr call = make_of(Kind::call, at, "", std::move(made));
      arguments(*call);
      made = std::move(call);
    } else {
      return made;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr of, size_t at) {
  const auto ends = [&] { return at_symbol(":") || at_symbol("]"); };
  ExpressionPtr first = at_symbol(":") ? nullptr : expression();
  if (!at_symbol(":")) {
    if (at_symbol(",")) fail(here().at, "a subscript with a comma is not built");
    expect_symbol("]");
    return make_of(Kind::item, at, "", std::move(of), std::move(first));
  }
  ExpressionPtr bounds[2];
  for (ExpressionPtr& bound : bounds) {
    if (skip_symbol(":") && !ends()) bound = expression();
  }
  expect_symbol("]");
  return make_of(Kind::slice, at, "", std::move(of), std::move(first), std::move(bounds[0]),
                 std::move(bounds[1]));
}

void ExpressionParser::arguments(Expression& call) {
  expect_symbol("(");
  bool first = true;
  while (!at_symbol(")")) {
    if (!first) expect_symbol(",");
    if (at_symbol(")")) break;
    first = false;
    if (at_symbol("**")) fail(here().at, "arguments with ** are not built");
    const bool spread = !call.parts.empty() && call.parts.back()->kind == Kind::spread;
    if (at_symbol("*")) {
      if (spread) fail(here().at, "a second argument with *");
      const size_t at = take().at;
      add(call, make_of(Kind::spread, at, "", expression()));
      continue;
    }
    const bool is_named = here().kind == Token::Kind::name && ahead().kind == Token::Kind::symbol &&
                          ahead().text == "=";
    if (is_named) {
      std::string name = take().text;
      take();
      ExpressionPtr value = expression();
      call.depth = std::max(call.depth, value->depth + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else if (!call.named.empty() || spread) {
      fail(here().at, "an argument without a name follows one with a name or with *");
    } else {
      add(call, expression());
    }
  }
  take();
  if (call.depth > kDeepestExpression) fail(call.at, "an expression nested too deeply");
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr made) {
  while (true) {
    const size_t at = here().at;
    if (skip_symbol("|")) {
      ExpressionPtr filter =
          make_of(Kind::filter, at, expect_name("the name of a filter"), std::move(made));
      if (at_symbol("(")) arguments(*filter);
      made = std::move(filter);
    } else if (skip_name("is")) {
      made = test(std::move(made), at);
    } else if (at_symbol("(")) {
      ExpressionPtr call = make_of(Kind::call, at, "", std::move(made));
      arguments(*call);
      made = std::move(call);
    } else {
      return made;
    }
  }
}

ExpressionPtr ExpressionParser::test(ExpressionPtr of, size_t at) {
  const bool negated = skip_name("not");
  ExpressionPtr made = make_of(Kind::test, at, expect_name("the name of a test"), std::move(of));
  using T = Token::Kind;
  const T kind = here().kind;
  const bool opens = at_symbol("[") || at_symbol("{");
  const bool goes_on = at_name("else") || at_name("or") || at_name("and");
  if (at_symbol("(")) {
    arguments(*made);
  } else if ((kind == T::name || kind == T::string || kind == T::integer || kind == T::real ||
              opens) &&
             !goes_on) {
    if (at_name("is")) fail(here().at, "two tests one behind the other");
    add(*made, postfix(primary()));
  }
  return negated ? make_of(Kind::unary, at, "not", std::move(made)) : std::move(made);
}

}  // namespace tptrain::chat_template::jinja
