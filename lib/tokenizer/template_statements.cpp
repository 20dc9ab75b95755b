#include <algorithm>

#include "base/text.h"
#include "tokenizer/template_evaluator.h"

namespace tptrain::tokenizer::jinja {

namespace {

constexpr uint64_t kMostWork = uint64_t{1} << 25;  // a long conversation needs about 2^16
constexpr size_t kLongestOutput = size_t{64} << 20;

}  // namespace

std::string Evaluator::run(const Body& body, const std::vector<std::string>& hidden,
                           std::vector<std::pair<std::string, Value>> variables) {
  Frame context{nullptr, std::move(variables)};
  Frame globals{&context, {}, &hidden};
  return capture(body, globals);
}

std::string Evaluator::capture(const Body& body, Frame& frame) {
  std::string text;
  std::string* const outer_out = std::exchange(out_, &text);
  Frame* const outer_frame = std::exchange(frame_, &frame);
  run_body(body);
  out_ = outer_out;
  frame_ = outer_frame;
  return text;
}

Evaluator::Flow Evaluator::run_body(const Body& body) {
  for (const Statement& statement : body) {
    try {
      const Level level(*this);
      spend(1);
      const Flow flow = run_statement(statement);
      if (flow != Flow::on) return flow;
    } catch (const ValueError& e) {
      throw TemplateError{statement.at, e.message};
    }
  }
  return Flow::on;
}

Evaluator::Flow Evaluator::run_statement(const Statement& statement) {
  using Kind = Statement::Kind;
  switch (statement.kind) {
    case Kind::text:
      write(statement.text);
      break;
    case Kind::output: {
      const Value value = evaluate(*statement.expression);
      write(text_of(value));
      break;
    }
    case Kind::if_chain:
      return run_if(statement);
    case Kind::for_loop:
      run_loop(statement);
      break;
    case Kind::set:
      assign(statement, evaluate(*statement.expression));
      break;
    case Kind::set_block: {
      Frame inner{frame_, {}, &statement.hidden};
      set(statement.targets[0], text(capture(statement.body, inner)));
      break;
    }
    case Kind::set_member:
      set_member(statement);
      break;
    case Kind::macro:
      set(statement.text, Macro{&statement, frame_});
      break;
    case Kind::scope: {
      Frame inner{frame_, {}, &statement.hidden};
      write(capture(statement.body, inner));
      break;
    }
    case Kind::break_loop:
      return Flow::break_loop;
    case Kind::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::on;
}

Evaluator::Flow Evaluator::run_if(const Statement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    if (truth_of(evaluate(*condition))) return run_body(body);
  }
  return run_body(statement.otherwise);
}

void Evaluator::run_loop(const Statement& statement) {
  std::vector<Value> items = items_of(evaluate(*statement.expression));
  spend(items.size());
  Frame* const outer = frame_;
  if (statement.condition) {
    std::vector<Value> chosen;
    for (const Value& item : items) {
      Frame turn{outer, {}};
      frame_ = &turn;
      assign(statement, item);
      if (truth_of(evaluate(*statement.condition))) chosen.push_back(item);
      frame_ = outer;
    }
    items = std::move(chosen);
  }
  LoopData loop{&items, 0};
  Flow flow = Flow::on;
  bool completed = false;
  for (const size_t size = items.size();
       flow != Flow::break_loop && loop.index < static_cast<int64_t>(size); ++loop.index) {
    Frame turn{outer, {}, &statement.hidden};  // what a turn sets, the next one does not see
    frame_ = &turn;
    set("loop", Loop{&loop});
    assign(statement, items[loop.index]);
    flow = run_body(statement.body);
    completed = completed || flow == Flow::on;
    frame_ = outer;
  }
  // Jinja's else runs where no turn has come to its end, be it for a break or a continue.
  if (!completed) {
    Frame inner{outer, {}, &statement.hidden_otherwise};
    frame_ = &inner;
    flow = run_body(statement.otherwise);
    frame_ = outer;
    if (flow != Flow::on) throw ValueError{"break in the else of a loop is not built"};
  }
}

void Evaluator::assign(const Statement& statement, const Value& value) {
  if (!statement.unpacks && statement.targets.size() == 1) {
    set(statement.targets[0], value);
    return;
  }
  const std::vector<Value> items = items_of(value);
  if (items.size() != statement.targets.size()) {
    throw ValueError{cat("cannot take ", statement.targets.size(), " values from ", items.size())};
  }
  for (size_t i = 0; i < items.size(); ++i) set(statement.targets[i], items[i]);
}

void Evaluator::set_member(const Statement& statement) {
  const Value target = variable(statement.targets[0]);
  const Namespace* space = target.as<Namespace>();
  if (space == nullptr) {
    throw ValueError{cat("cannot set an attribute of ", kind_of(target),
                         ": only namespaces have some that can be set")};
  }
  Value value = evaluate(*statement.expression);
  make_list({value});  // what cannot stand in a list cannot stand here
  for (auto& [name, old] : (*space)->attributes) {
    if (name == statement.text) {
      old = std::move(value);
      return;
    }
  }
  (*space)->attributes.emplace_back(statement.text, std::move(value));
}

void Evaluator::set(const std::string& name, Value value) {
  for (auto& [known, old] : frame_->variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  frame_->variables.emplace_back(name, std::move(value));
}

void Evaluator::write(const std::string& text) {
  spend(text.size() / 8);
  if (text.size() > kLongestOutput - std::min(out_->size(), kLongestOutput)) {
    throw ValueError{cat("more than ", human_bytes(kLongestOutput), " of text")};
  }
  *out_ += text;
}

void Evaluator::spend(uint64_t work) {
  spent_ += std::min(work, kMostWork);
  if (spent_ > kMostWork) throw ValueError{"too much work for one conversation"};
}

Value Evaluator::text(std::string text) {
  spend(text.size() / 8);
  return make_text(std::move(text));
}

}  // namespace tptrain::tokenizer::jinja
