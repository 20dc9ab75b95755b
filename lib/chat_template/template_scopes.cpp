// Which names of a scope hide those around it before they are set. Jinja decides that once for a
// whole scope: a name that is set in a scope, and was not looked at in it before, is undefined
// inside nested scopes that run before it is set, even where the conversation has a variable of
// that name.
#include <algorithm>
#include <map>
#include <set>

#include "chat_template/template_syntax.h"

namespace tptrain::chat_template::jinja {

namespace {

/// Jinja's Symbols: what each name of a scope is before the scope sets it.
struct Symbols {
  enum class Before { hidden, outer };  // nothing; or what is found around the scope
  const Symbols* parent = nullptr;
  std::map<std::string, Before> names = {};
  std::set<std::string> stores = {};

  bool knows(const std::string& name) const {
    for (const Symbols* scope = this; scope != nullptr; scope = scope->parent) {
      if (scope->names.count(name) > 0) return true;
    }
    return false;
  }
  void load(const std::string& name) {
    if (!knows(name)) names[name] = Before::outer;
  }
  void store(const std::string& name) {
    stores.insert(name);
    if (names.count(name) > 0) return;
    const bool around = parent != nullptr && parent->knows(name);
    names[name] = around ? Before::outer : Before::hidden;
  }
  /// Names that are set in some branches only are looked up around the scope.
  void join(const std::vector<Symbols>& branches) {
    std::set<std::string> set_in_branches;
    for (const Symbols& branch : branches) {
      for (const std::string& name : branch.stores) {
        if (stores.count(name) == 0) set_in_branches.insert(name);
      }
    }
    for (const Symbols& branch : branches) {
      for (const auto& [name, before] : branch.names) names[name] = before;
      stores.insert(branch.stores.begin(), branch.stores.end());
    }
    for (const std::string& name : set_in_branches) names[name] = Before::outer;
  }
};

void load_all(const Expression* e, Symbols& symbols) {
  if (e == nullptr) return;
  if (e->kind == Expression::Kind::name) symbols.load(e->text);
  for (const ExpressionPtr& part : e->parts) load_all(part.get(), symbols);
  for (const auto& [name, value] : e->named) load_all(value.get(), symbols);
}

void visit_all(const Body& body, Symbols& symbols) {
  using Kind = Statement::Kind;
  for (const Statement& statement : body) {
    load_all(statement.expression.get(), symbols);
    switch (statement.kind) {
      case Kind::set:
      case Kind::set_block:
        for (const std::string& name : statement.targets) symbols.store(name);
        break;
      case Kind::set_member:
        symbols.load(statement.targets[0]);
        break;
      case Kind::macro:
        symbols.store(statement.text);
        break;
      case Kind::if_chain: {
        load_all(statement.branches[0].first.get(), symbols);
        std::vector<Symbols> branches(3, symbols);  // if, all elif one behind the other, else
        visit_all(statement.branches[0].second, branches[0]);
        for (size_t i = 1; i < statement.branches.size(); ++i) {
          load_all(statement.branches[i].first.get(), branches[1]);
          Symbols branch = branches[1];
          visit_all(statement.branches[i].second, branch);
          branches[1].join({branch});
        }
        visit_all(statement.otherwise, branches[2]);
        symbols.join(branches);
        break;
      }
      default:
        break;
    }
  }
}

void settle_scope(Body& body, Symbols symbols, std::vector<std::string>& hidden);

/// The scopes that stand inside a body, those in its branches among them.
void settle_inner(Body& body, const Symbols& symbols) {
  using Kind = Statement::Kind;
  for (Statement& statement : body) {
    Symbols inner{.parent = &symbols};
    switch (statement.kind) {
      case Kind::if_chain:
        for (auto& [condition, branch] : statement.branches) settle_inner(branch, symbols);
        settle_inner(statement.otherwise, symbols);
        break;
      case Kind::for_loop: {
        settle_scope(statement.otherwise, inner, statement.hidden_otherwise);
        for (const std::string& name : statement.targets)
          inner.names[name] = Symbols::Before::outer;
        inner.names["loop"] = Symbols::Before::outer;
        inner.stores.insert(statement.targets.begin(), statement.targets.end());
        settle_scope(statement.body, inner, statement.hidden);
        break;
      }
      case Kind::macro:
        for (const auto& [name, otherwise] : statement.parameters) {
          inner.names[name] = Symbols::Before::outer;
          inner.stores.insert(name);
        }
        for (const auto& [name, otherwise] : statement.parameters) load_all(otherwise.get(), inner);
        settle_scope(statement.body, inner, statement.hidden);
        break;
      case Kind::set_block:
      case Kind::scope:
        settle_scope(statement.body, inner, statement.hidden);
        break;
      default:
        break;
    }
  }
}

void settle_scope(Body& body, Symbols symbols, std::vector<std::string>& hidden) {
  visit_all(body, symbols);
  for (const auto& [name, before] : symbols.names) {
    if (before == Symbols::Before::hidden) hidden.push_back(name);
  }
  settle_inner(body, symbols);
}

}  // namespace

std::vector<std::string> settle_scopes(Body& body) {
  std::vector<std::string> hidden;
  settle_scope(body, {}, hidden);
  return hidden;
}

}  // namespace tptrain::chat_template::jinja
