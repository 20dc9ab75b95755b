#include <algorithm>

#include "base/text.h"
#include "chat_template/template_expression_parser.h"

namespace tptrain::chat_template::jinja {

namespace {

constexpr int kDeepestStatement = 30;

class Parser : private ExpressionParser {
 public:
  explicit Parser(const std::vector<Token>& tokens) : ExpressionParser(tokens) {}

  Body run() {
    Body body = statements({});
    if (here().kind != Token::Kind::end) fail(here().at, cat("unexpected ", spelled(here())));
    return body;
  }

 private:
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
        statement.expression = tuple({}, true);
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

  int depth_ = 0;  // of statements
  int loops_ = 0;  // around this place
};

}  // namespace

Body parse(const std::vector<Token>& tokens) { return Parser(tokens).run(); }

}  // namespace tptrain::chat_template::jinja
