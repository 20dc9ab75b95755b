#include <algorithm>

#include "base/text.h"
#include "tokenizer/template_syntax.h"

namespace tptrain::tokenizer::jinja {

namespace {

using Kind = Expression::Kind;

constexpr int kDeepestExpression = 100;
constexpr int kDeepestStatement = 30;

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

class Parser {
 public:
  explicit Parser(const std::vector<Token>& tokens) : tokens_(tokens) {}

  Body run() {
    Body body = statements({});
    if (here().kind != Token::Kind::end) fail(here().at, cat("unexpected ", spelled(here())));
    return body;
  }

 private:
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

  // ---- statements
  /// Up to the tag that one of `ends` begins; that name is the next token then. Without ends: all.
  Body statements(const std::vector<std::string>& ends) {
    if (++depth_ > kDeepestStatement) fail(here().at, "tags nested too deeply");
    const size_t begin = here().at;
    Body body;
    while (here().kind != Token::Kind::end) {
      const Token& token = take();
      if (token.kind == Token::Kind::text) {
        Statement statement{.kind = Statement::Kind::text, .at = token.at, .text = token.text};
        body.push_back(std::move(statement));
      } else if (token.kind == Token::Kind::variable_begin) {
        Statement statement{.kind = Statement::Kind::output, .at = token.at};
        statement.expression = without_safe(tuple({}, true));
        if (here().kind != Token::Kind::variable_end) {
          fail(here().at, cat("expected \"}}\", got ", spelled(here())));
        }
        take();
        body.push_back(std::move(statement));
      } else {
        if (std::any_of(ends.begin(), ends.end(),
                        [&](const std::string& name) { return at_name(name); })) {
          --depth_;
          return body;
        }
        body.push_back(statement(token.at));
        expect_block_end();
      }
    }
    if (!ends.empty()) fail(begin, cat("this block has no {% ", ends.back(), " %}"));
    --depth_;
    return body;
  }

  /// What `safe` marks is only looked at by escaping, which is off; so at the end of an output it
  /// changes nothing. Anywhere else it would change what + and join do.
  ExpressionPtr without_safe(ExpressionPtr expression) const {
    while (expression->kind == Kind::filter && expression->text == "safe" &&
           expression->parts.size() == 1 && expression->named.empty()) {
      expression = std::move(expression->parts[0]);
    }
    return expression;
  }

  Statement statement(size_t at) {
    const size_t name_at = here().at;
    const std::string tag = expect_name("the name of a tag");
    if (tag == "if") return if_chain(at);
    if (tag == "for") return for_loop(at);
    if (tag == "set") return set(at);
    if (tag == "macro") return macro(at);
    if (tag == "generation") return generation(at);
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail(name_at, cat("{% ", tag, " %} outside of a loop"));
      return {.kind = tag == "break" ? Statement::Kind::break_loop : Statement::Kind::continue_loop,
              .at = at};
    }
    static const std::vector<std::string> kNotBuilt = {"raw",     "include", "import",     "from",
                                                       "extends", "block",   "call",       "filter",
                                                       "with",    "do",      "autoescape", "trans"};
    const bool known = std::find(kNotBuilt.begin(), kNotBuilt.end(), tag) != kNotBuilt.end();
    fail(name_at, known ? cat("{% ", tag, " %} is not built")
                        : cat("{% ", tag, " %} is no tag that is known here"));
  }

  Statement if_chain(size_t at) {
    Statement chain{.kind = Statement::Kind::if_chain, .at = at};
    while (true) {
      ExpressionPtr test = tuple({}, false);
      expect_block_end();
      Body body = statements({"elif", "else", "endif"});
      chain.branches.emplace_back(std::move(test), std::move(body));
      const std::string end = take().text;
      if (end == "elif") continue;
      if (end == "else") {
        expect_block_end();
        chain.otherwise = statements({"endif"});
        take();
      }
      return chain;
    }
  }

  Statement for_loop(size_t at) {
    Statement loop{.kind = Statement::Kind::for_loop, .at = at};
    targets(loop);
    if (!skip_name("in")) fail(here().at, cat("expected \"in\", got ", spelled(here())));
    loop.expression = tuple({"if", "recursive"}, false);
    if (skip_name("if")) loop.condition = expression();
    if (at_name("recursive")) fail(here().at, "recursive loops are not built");
    expect_block_end();
    ++loops_;
    loop.body = statements({"else", "endfor"});
    --loops_;
    if (take().text == "else") {
      expect_block_end();
      loop.otherwise = statements({"endfor"});
      take();
    }
    return loop;
  }

  /// a | a, b | (a, b)
  void targets(Statement& statement) {
    const bool parentheses = skip_symbol("(");
    while (true) {
      const size_t at = here().at;
      statement.targets.push_back(expect_name("the name of a variable"));
      check_assignable(statement.targets.back(), at);
      if (!skip_symbol(",")) break;
      statement.unpacks = true;
      if (here().kind != Token::Kind::name || at_name("in")) break;  // "a," is a tuple too
    }
    if (parentheses) expect_symbol(")");
  }

  void check_assignable(const std::string& name, size_t at) const {
    static const std::vector<std::string> kConstants = {"true", "false", "none",
                                                        "True", "False", "None"};
    if (std::find(kConstants.begin(), kConstants.end(), name) != kConstants.end()) {
      fail(at, cat("cannot assign to ", name));
    }
  }

  Statement set(size_t at) {
    Statement assignment{.kind = Statement::Kind::set, .at = at};
    targets(assignment);
    if (assignment.targets.size() == 1 && !assignment.unpacks && skip_symbol(".")) {
      assignment.kind = Statement::Kind::set_member;
      assignment.text = expect_name("the name of an attribute");
    }
    if (skip_symbol("=")) {
      assignment.expression = tuple({}, true);
      return assignment;
    }
    if (at_symbol("|")) fail(here().at, "{% set %} with a filter and a block is not built");
    if (assignment.kind != Statement::Kind::set || assignment.unpacks) {
      fail(here().at, cat("expected \"=\", got ", spelled(here())));
    }
    assignment.kind = Statement::Kind::set_block;
    expect_block_end();
    assignment.body = outside_loops({"endset"});
    take();
    return assignment;
  }

  /// A block that a break cannot leave.
  Body outside_loops(const std::vector<std::string>& ends) {
    const int loops = std::exchange(loops_, 0);
    Body body = statements(ends);
    loops_ = loops;
    return body;
  }

  Statement macro(size_t at) {
    Statement macro{.kind = Statement::Kind::macro, .at = at};
    macro.text = expect_name("the name of a macro");
    check_assignable(macro.text, at);
    expect_symbol("(");
    while (!at_symbol(")")) {
      if (!macro.parameters.empty()) expect_symbol(",");
      if (at_symbol(")")) break;
      const size_t name_at = here().at;
      std::string name = expect_name("the name of a parameter");
      check_assignable(name, name_at);
      for (const auto& [other, value] : macro.parameters) {
        if (other == name) fail(name_at, cat("two parameters are called ", name));
      }
      ExpressionPtr otherwise = skip_symbol("=") ? expression() : nullptr;
      if (!otherwise && !macro.parameters.empty() && macro.parameters.back().second) {
        fail(name_at, cat("parameter ", name, " without a default follows one with it"));
      }
      macro.parameters.emplace_back(std::move(name), std::move(otherwise));
    }
    expect_symbol(")");
    expect_block_end();
    ++macros_;
    macro.body = outside_loops({"endmacro"});
    --macros_;
    take();
    return macro;
  }

  Statement generation(size_t at) {
    Statement scope{.kind = Statement::Kind::scope, .at = at};
    expect_block_end();
    scope.body = outside_loops({"endgeneration"});
    take();
    return scope;
  }

  // ---- expressions: each level as in Jinja's parser, by its name there
  ExpressionPtr make(Kind kind, size_t at, std::string text = "") const {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->at = at;
    made->text = std::move(text);
    return made;
  }
  void add(Expression& to, ExpressionPtr part) const {
    if (part) to.depth = std::max(to.depth, part->depth + 1);
    if (to.depth > kDeepestExpression) fail(to.at, "an expression nested too deeply");
    to.parts.push_back(std::move(part));
  }
  ExpressionPtr constant(Value value, size_t at) const {
    ExpressionPtr made = make(Kind::constant, at);
    made->constant = std::move(value);
    return made;
  }
  template <typename... Parts>
  ExpressionPtr make_of(Kind kind, size_t at, std::string text, Parts... parts) const {
    ExpressionPtr made = make(kind, at, std::move(text));
    (add(*made, std::move(parts)), ...);
    return made;
  }

  /// Counts the calls that stand on the stack while it lives.
  struct Level {
    explicit Level(Parser& parser) : parser(parser) {
      if (++parser.level_ > kDeepestExpression) {
        parser.fail(parser.here().at, "an expression nested too deeply");
      }
    }
    ~Level() { --parser.level_; }
    Parser& parser;
  };

  ExpressionPtr expression(bool with_condition = true) {
    const Level level(*this);
    return with_condition ? condition() : logical_or();
  }

  /// parse_tuple: expressions with commas between them, or one alone. `ends`: names that end it.
  ExpressionPtr tuple(const std::vector<std::string>& ends, bool with_condition) {
    return tuple_until(ends, with_condition, /*parentheses=*/false);
  }
  ExpressionPtr tuple_until(const std::vector<std::string>& ends, bool with_condition,
                            bool parentheses) {
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

  ExpressionPtr condition() {
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

  ExpressionPtr logical_or() {
    ExpressionPtr left = logical_and();
    while (at_name("or")) {
      const size_t at = take().at;
      left = make_of(Kind::binary, at, "or", std::move(left), logical_and());
    }
    return left;
  }

  ExpressionPtr logical_and() {
    ExpressionPtr left = logical_not();
    while (at_name("and")) {
      const size_t at = take().at;
      left = make_of(Kind::binary, at, "and", std::move(left), logical_not());
    }
    return left;
  }

  ExpressionPtr logical_not() {
    if (!at_name("not")) return compare();
    const Level level(*this);
    const size_t at = take().at;
    return make_of(Kind::unary, at, "not", logical_not());
  }

  ExpressionPtr compare() {
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

  ExpressionPtr sum() {
    ExpressionPtr left = concat();
    while (at_symbol("+") || at_symbol("-")) {
      const Token& token = take();
      left = make_of(Kind::binary, token.at, token.text, std::move(left), concat());
    }
    return left;
  }

  ExpressionPtr concat() {
    ExpressionPtr first = product();
    if (!at_symbol("~")) return first;
    ExpressionPtr joined = make_of(Kind::concat, here().at, "", std::move(first));
    while (skip_symbol("~")) add(*joined, product());
    return joined;
  }

  ExpressionPtr product() {
    ExpressionPtr left = unary(true);
    while (true) {
      if (at_symbol("**")) fail(here().at, "the operator ** is not built");
      if (!at_symbol("*") && !at_symbol("/") && !at_symbol("//") && !at_symbol("%")) return left;
      const Token& token = take();
      left = make_of(Kind::binary, token.at, token.text, std::move(left), unary(true));
    }
  }

  ExpressionPtr unary(bool with_filter) {
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

  ExpressionPtr primary() {
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

  ExpressionPtr postfix(ExpressionPtr made) {
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

  ExpressionPtr subscript(ExpressionPtr of, size_t at) {
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

  void arguments(Expression& call) {
    expect_symbol("(");
    bool first = true;
    while (!at_symbol(")")) {
      if (!first) expect_symbol(",");
      if (at_symbol(")")) break;
      first = false;
      if (at_symbol("*") || at_symbol("**")) {
        fail(here().at, cat("arguments with ", here().text, " are not built"));
      }
      const bool is_named = here().kind == Token::Kind::name &&
                            ahead().kind == Token::Kind::symbol && ahead().text == "=";
      if (is_named) {
        std::string name = take().text;
        take();
        ExpressionPtr value = expression();
        call.depth = std::max(call.depth, value->depth + 1);
        call.named.emplace_back(std::move(name), std::move(value));
      } else if (!call.named.empty()) {
        fail(here().at, "an argument without a name follows one with a name");
      } else {
        add(call, expression());
      }
    }
    take();
    if (call.depth > kDeepestExpression) fail(call.at, "an expression nested too deeply");
  }

  ExpressionPtr filters(ExpressionPtr made) {
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

  ExpressionPtr test(ExpressionPtr of, size_t at) {
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

  const std::vector<Token>& tokens_;
  size_t next_ = 0;
  int depth_ = 0;   // of statements
  int level_ = 0;   // of expressions
  int loops_ = 0;   // around this place
  int macros_ = 0;  // around this place
};

}  // namespace

Body parse(const std::vector<Token>& tokens) { return Parser(tokens).run(); }

}  // namespace tptrain::tokenizer::jinja
