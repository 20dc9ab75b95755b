#include <algorithm>

#include "base/text.h"
#include "chat_template/template_evaluator.h"

namespace tptrain::chat_template::jinja {

Value Evaluator::evaluate(const Expression& e) {
  Value value = evaluate_for_text(e);
  if (!value.is<Safe>()) return value;
  throw TemplateError{e.at, "what safe has marked is built in outputs, in ~ and in set only"};
}

Value Evaluator::evaluate_for_text(const Expression& e) {
  try {
    const Level level(*this);
    spend(1);
    return evaluate_parts(e);
  } catch (const ValueError& error) {
    throw TemplateError{e.at, error.message};
  }
}

Value Evaluator::evaluate_parts(const Expression& e) {
  using Kind = Expression::Kind;
  switch (e.kind) {
    case Kind::constant:
      return e.constant;
    case Kind::name:
      return variable(e.text);
    case Kind::attribute:
      return attribute(evaluate(*e.parts[0]), e.text);
    case Kind::item: {
      const Value of = evaluate(*e.parts[0]);
      return item(of, evaluate(*e.parts[1]));
    }
    case Kind::slice:
      return slice(e);
    case Kind::call:
      return call(e);
    case Kind::spread:
      throw ValueError{"* outside of arguments"};
    case Kind::filter: {
      const Value value = evaluate(*e.parts[0]);
      return filter(e.text, value, arguments(e));
    }
    case Kind::test: {
      const Value value = evaluate(*e.parts[0]);
      if (!e.named.empty()) throw ValueError{"named arguments of a test are not built"};
      return test(e.text, value, evaluate_all(e, 1));
    }
    case Kind::unary:
      return unary(e.text, evaluate(*e.parts[0]));
    case Kind::binary:
      return binary(e);
    case Kind::concat: {
      SourcedText joined;
      for (const auto& part : e.parts) joined.append(text_of(evaluate_for_text(*part)));
      return text(std::move(joined));
    }
    case Kind::condition:
      if (truth_of(evaluate(*e.parts[0]))) return evaluate_for_text(*e.parts[1]);
      return e.parts[2] ? evaluate_for_text(*e.parts[2]) : Value(Undefined{});
    case Kind::compare:
      return compare(e);
    case Kind::list:
      return make_list(evaluate_all(e, 0));
    case Kind::tuple:
      return make_list(evaluate_all(e, 0), ListData::Shape::tuple);
    case Kind::dict: {
      std::vector<std::pair<std::string, Value>> items;
      for (size_t i = 0; i < e.parts.size(); i += 2) {
        const Value key = evaluate(*e.parts[i]);
        if (!key.is<Text>()) throw ValueError{cat(kind_of(key), " as a key is not built")};
        items.emplace_back(key.text(), evaluate(*e.parts[i + 1]));
      }
      spend(items.size() * items.size() / 8);
      return make_dict(std::move(items));
    }
  }
  throw ValueError{"an expression of a kind that is not known"};
}

std::vector<Value> Evaluator::evaluate_all(const Expression& e, size_t from) {
  std::vector<Value> values;
  for (size_t i = from; i < e.parts.size(); ++i) {
    if (e.parts[i]->kind != Expression::Kind::spread) {
      values.push_back(evaluate(*e.parts[i]));
      continue;
    }
    for (Value& item : items_of(evaluate(*e.parts[i]->parts[0]))) values.push_back(std::move(item));
    spend(values.size());
  }
  return values;
}

Arguments Evaluator::arguments(const Expression& call) {
  Arguments arguments{evaluate_all(call, 1), {}};
  for (const auto& [name, value] : call.named) {
    for (const auto& [other, ignored] : arguments.named) {
      if (other == name) throw ValueError{cat("the argument ", name, " is given twice")};
    }
    arguments.named.emplace_back(name, evaluate(*value));
  }
  return arguments;
}

Value Evaluator::variable(const std::string& name) {
  for (const Frame* frame = frame_; frame != nullptr; frame = frame->parent) {
    for (const auto& [known, value] : frame->variables) {
      if (known == name) return value;
    }
    if (frame->hidden != nullptr &&
        std::binary_search(frame->hidden->begin(), frame->hidden->end(), name)) {
      return Undefined{name};
    }
  }
  return function_named(name);
}

Value Evaluator::attribute(const Value& of, const std::string& name) {
  if (of.is<Undefined>()) {
    throw ValueError{cat(kind_of(of), " has no attribute ", name)};
  }
  if (name.starts_with("__")) throw ValueError{cat("the attribute ", name, " is not built")};
  if (is_python_attribute(of, name)) {
    throw ValueError{cat("the method ", name, " of ", kind_of(of), " without a call is not built")};
  }
  if (const Dict* dict = of.as<Dict>()) {
    spend((*dict)->items.size() / 4);
    if (const Value* found = find(**dict, name)) return *found;
  } else if (const Namespace* space = of.as<Namespace>()) {
    for (const auto& [known, value] : (*space)->attributes) {
      if (known == name) return value;
    }
  } else if (const Loop* loop = of.as<Loop>()) {
    const std::vector<Value>& items = *loop->data->items;
    const int64_t index = loop->data->index;
    const int64_t length = static_cast<int64_t>(items.size());
    if (name == "index") return index + 1;
    if (name == "index0") return index;
    if (name == "revindex") return length - index;
    if (name == "revindex0") return length - index - 1;
    if (name == "first") return index == 0;
    if (name == "last") return index == length - 1;
    if (name == "length") return length;
    if (name == "depth") return int64_t{1};
    if (name == "depth0") return int64_t{0};
    if (name == "previtem") return index == 0 ? Value(Undefined{name}) : items[index - 1];
    if (name == "nextitem") return index == length - 1 ? Value(Undefined{name}) : items[index + 1];
    throw ValueError{cat("loop.", name, " is not built")};
  } else if (of.is<Macro>() || of.is<Function>()) {
    throw ValueError{cat("an attribute of ", kind_of(of), " is not built")};
  }
  return Undefined{name};
}

Value Evaluator::item(const Value& of, const Value& key) {
  if (of.is<Undefined>()) throw ValueError{cat(kind_of(of), " has no entries")};
  if (key.is<Text>()) {
    if (const Dict* dict = of.as<Dict>()) {  // keys go before methods here
      spend((*dict)->items.size() / 4);
      if (const Value* found = find(**dict, key.text())) return *found;
    }
    return attribute(of, key.text());
  }
  if (!key.is<int64_t>() && !key.is<bool>()) return Undefined{};
  int64_t index = key.integer();
  if (const List* list = of.as<List>()) {
    if ((*list)->shape > ListData::Shape::tuple) {
      throw ValueError{cat("an entry of ", kind_of(of), " is not built: list makes a list")};
    }
    const auto size = static_cast<int64_t>((*list)->items.size());
    if (index < 0) index += size;
    if (index >= 0 && index < size) return (*list)->items[index];
  } else if (of.is<Text>()) {
    const auto characters = characters_of(of.text());
    spend(characters.size());
    const auto size = static_cast<int64_t>(characters.size());
    if (index < 0) index += size;
    if (index >= 0 && index < size) {
      const auto begin = static_cast<size_t>(characters[index].data() - of.text().data());
      return text(of.sourced().part(begin, characters[index].size()));
    }
  }
  return Undefined{};
}

Value Evaluator::slice(const Expression& e) {
  const Value of = evaluate(*e.parts[0]);
  const auto bound = [&](size_t part, int64_t absent, bool& given) {
    given = false;
    if (!e.parts[part]) return absent;
    const Value value = evaluate(*e.parts[part]);
    if (value.is<None>()) return absent;
    if (!value.is<int64_t>() && !value.is<bool>()) {
      throw ValueError{cat("a slice with ", kind_of(value))};
    }
    given = true;
    return value.integer();
  };
  const bool on_text = of.is<Text>();
  const List* list = of.as<List>();
  if (!on_text && (list == nullptr || (*list)->shape > ListData::Shape::tuple)) {
    throw ValueError{cat("cannot slice ", kind_of(of))};
  }
  std::vector<std::string_view> characters;
  if (on_text) characters = characters_of(of.text());
  const auto size = static_cast<int64_t>(on_text ? characters.size() : (*list)->items.size());
  spend(static_cast<uint64_t>(size));

  bool given = false;
  const int64_t step = bound(3, 1, given);
  if (step == 0) throw ValueError{"a slice with step 0"};
  // Python's slice.indices
  const auto clamp = [&](int64_t at) {
    if (at < 0) at = at < -size ? -1 : at + size;
    if (at < 0) return step < 0 ? int64_t{-1} : int64_t{0};
    return at >= size ? (step < 0 ? size - 1 : size) : at;
  };
  int64_t begin = bound(1, 0, given);
  begin = given ? clamp(begin) : step < 0 ? size - 1 : 0;
  int64_t end = bound(2, 0, given);
  end = given ? clamp(end) : step < 0 ? -1 : size;

  SourcedText cut;
  std::vector<Value> items;
  for (int64_t at = begin; step > 0 ? at < end : at > end;) {
    if (on_text) {
      cut.append_part(of.sourced(), static_cast<size_t>(characters[at].data() - of.text().data()),
                      characters[at].size());
    } else {
      items.push_back((*list)->items[at]);
    }
    if (step > size || step < -size) break;
    at += step;
  }
  return on_text ? text(std::move(cut)) : make_list(std::move(items), (*list)->shape);
}

Value Evaluator::unary(const std::string& operation, const Value& value) {
  if (operation == "not") return !truth_of(value);
  if (!value.is_number()) throw ValueError{cat("cannot apply ", operation, " to ", kind_of(value))};
  if (operation == "-" && value.is<double>()) return -value.real();
  if (operation == "-") return arithmetic("-", int64_t{0}, value);
  return value.is<bool>() ? Value(value.integer()) : value;
}

Value Evaluator::binary(const Expression& e) {
  const Value a = evaluate(*e.parts[0]);
  if (e.text == "and") return truth_of(a) ? evaluate(*e.parts[1]) : a;
  if (e.text == "or") return truth_of(a) ? a : evaluate(*e.parts[1]);
  const Value b = evaluate(*e.parts[1]);
  return e.text == "+" ? add(a, b) : arithmetic(e.text, a, b);
}

Value Evaluator::add(const Value& a, const Value& b) {
  if (a.is<Text>() && b.is<Text>()) {
    SourcedText both = a.sourced();
    both.append(b.sourced());
    return text(std::move(both));
  }
  const List* list_a = a.as<List>();
  const List* list_b = b.as<List>();
  if (list_a != nullptr && list_b != nullptr && (*list_a)->shape == (*list_b)->shape &&
      (*list_a)->shape <= ListData::Shape::tuple) {
    std::vector<Value> items = (*list_a)->items;
    items.insert(items.end(), (*list_b)->items.begin(), (*list_b)->items.end());
    spend(items.size());
    return make_list(std::move(items), (*list_a)->shape);
  }
  return arithmetic("+", a, b);
}

Value Evaluator::arithmetic(const std::string& operation, const Value& a, const Value& b) {
  if (operation == "%" && a.is<Text>()) throw ValueError{"% on a string is not built"};
  if (operation == "*" && (a.is<Text>() || a.is<List>() || b.is<Text>() || b.is<List>())) {
    throw ValueError{cat("* of ", kind_of(a), " and ", kind_of(b), " is not built")};
  }
  if (!a.is_number() || !b.is_number()) {
    throw ValueError{cat("cannot apply ", operation, " to ", kind_of(a), " and ", kind_of(b))};
  }
  const bool divides = operation == "/" || operation == "//" || operation == "%";
  if (divides && b.real() == 0) throw ValueError{"division by zero"};
  if (a.is<double>() || b.is<double>() || operation == "/") {
    if (operation == "+") return a.real() + b.real();
    if (operation == "-") return a.real() - b.real();
    if (operation == "*") return a.real() * b.real();
    if (operation == "/") return a.real() / b.real();
    throw ValueError{cat(operation, " of floats is not built")};
  }
  const int64_t x = a.integer();
  const int64_t y = b.integer();
  int64_t result = 0;
  bool overflow = false;
  if (operation == "+") overflow = __builtin_add_overflow(x, y, &result);
  if (operation == "-") overflow = __builtin_sub_overflow(x, y, &result);
  if (operation == "*") overflow = __builtin_mul_overflow(x, y, &result);
  if (operation == "//" || operation == "%") {
    overflow = x == INT64_MIN && y == -1;
    if (!overflow) {  // towards minus infinity, as Python rounds
      const int64_t remainder = x % y;
      const bool down = remainder != 0 && (remainder < 0) != (y < 0);
      result = operation == "%" ? remainder + (down ? y : 0) : x / y - (down ? 1 : 0);
    }
  }
  if (overflow) throw ValueError{"an integer of more than 64 bits"};
  return result;
}

Value Evaluator::compare(const Expression& e) {
  Value left = evaluate(*e.parts[0]);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.parts[i + 1]);
    if (!compare_pair(e.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

bool Evaluator::compare_pair(const std::string& operation, const Value& a, const Value& b) {
  if (operation == "in" || operation == "not in") {
    spend(weight_of(a) + weight_of(b));
    return contains(b, a) == (operation == "in");
  }
  spend(std::min(weight_of(a), weight_of(b)));
  if (operation == "==") return equal(a, b);
  if (operation == "!=") return !equal(a, b);
  if (operation == "<") return less(a, b);
  if (operation == ">") return less(b, a);
  // not !less: that would be wrong for what is not a number, and this throws for what has no order
  if (operation == "<=") return less(a, b) || equal(a, b);
  return less(b, a) || equal(a, b);
}

Value Evaluator::call(const Expression& e) {
  const Expression& callee = *e.parts[0];
  if (callee.kind == Expression::Kind::attribute) {
    const Value of = evaluate(*callee.parts[0]);
    return method(of, callee.text, arguments(e));
  }
  const Value target = evaluate(callee);
  if (const Macro* macro = target.as<Macro>()) return call_macro(*macro, arguments(e));
  if (const Function* known = target.as<Function>()) {
    return function(e.at, known->name, arguments(e));
  }
  throw ValueError{cat("cannot call ", kind_of(target))};
}

Value Evaluator::call_macro(const Macro& macro, Arguments arguments) {
  const Statement& statement = *macro.statement;
  if (arguments.values.size() > statement.parameters.size()) {
    throw ValueError{cat("macro ", statement.text, " takes ", statement.parameters.size(),
                         " arguments, got ", arguments.values.size())};
  }
  Frame frame{macro.frame, {}, &statement.hidden};
  for (size_t i = 0; i < arguments.values.size(); ++i) {
    frame.variables.emplace_back(statement.parameters[i].first, std::move(arguments.values[i]));
  }
  for (auto& [name, value] : arguments.named) {
    const auto is_called = [&name = name](const auto& parameter) {
      return parameter.first == name;
    };
    const bool known =
        std::any_of(statement.parameters.begin(), statement.parameters.end(), is_called);
    const bool given = std::any_of(frame.variables.begin(), frame.variables.end(), is_called);
    if (!known || given) {
      throw ValueError{cat("macro ", statement.text,
                           known ? " gets a second argument " : " has no argument ", name)};
    }
    frame.variables.emplace_back(name, std::move(value));
  }
  Frame* const outer = std::exchange(frame_, &frame);
  for (const auto& [name, otherwise] : statement.parameters) {
    const bool given =
        std::any_of(frame.variables.begin(), frame.variables.end(),
                    [&name = name](const auto& variable) { return variable.first == name; });
    if (!given) set(name, otherwise ? evaluate(*otherwise) : Value(Undefined{name}));
  }
  frame_ = outer;
  return text(capture(statement.body, frame));
}

}  // namespace tptrain::chat_template::jinja
