#include <algorithm>

#include "base/text.h"
#include "chat_template/template_evaluator.h"

namespace tptrain::chat_template::jinja {

namespace {

constexpr uint64_t kMostWork = uint64_t{1} << 25;  // a long conversation needs about 2^16
constexpr size_t kLongestOutput = size_t{64} << 20;

}  // namespace

Evaluator::Evaluator(int64_t time_seconds, const Value& messages) : time_seconds_(time_seconds) {
  const List* list = messages.as<List>();
  if (list == nullptr) return;
  for (const Value& message : (*list)->items) {
    const auto index = static_cast<int32_t>(messages_.size());
    if (const Dict* dict = message.as<Dict>()) messages_.emplace(dict->get(), index);
  }
}

int32_t Evaluator::message_of(const Value& value) const {
  const Dict* dict = value.as<Dict>();
  const auto found = dict == nullptr ? messages_.end() : messages_.find(dict->get());
  return found == messages_.end() ? -1 : found->second;
}

SourcedText Evaluator::run(const Body& body, const std::vector<std::string>& hidden,
                           std::vector<std::pair<std::string, Value>> variables) {
  Frame context{nullptr, std::move(variables)};
  Frame globals{&context, {}, &hidden};
  return capture(body, globals);
}

SourcedText Evaluator::capture(const Body& body, Frame& frame) {
  SourcedText text;
  SourcedText* const outer_out = std::exchange(out_, &text);
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
      write(text_of(evaluate_for_text(*statement.expression)));
      break;
    }
    case Kind::if_chain:
      return run_if(statement);
    case Kind::for_loop:
      run_loop(statement);
      break;
    case Kind::set:
      assign(statement, evaluate_for_text(*statement.expression));
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
    const int32_t outer_message = message_;
    std::vector<Value> chosen;
    for (const Value& item : items) {
      Frame turn{outer, {}};
      frame_ = &turn;
      assign(statement, item);
      if (truth_of(evaluate(*statement.condition))) chosen.push_back(item);
      frame_ = outer;
      message_ = outer_message;
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
    const int32_t outer_message = message_;
    const bool outer_in_turn = std::exchange(in_turn_, true);
    assign(statement, items[loop.index]);
    flow = run_body(statement.body);
    message_ = outer_message;
    in_turn_ = outer_in_turn;
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
    // The turn of a loop is at the message that it takes first: its item, or one it looks up.
    if (in_turn_ && message_ < 0) message_ = message_of(value);
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

/// As of a template that writes a tool's response within the turn of the assistant that asked.
bool Evaluator::quotes_later_message(const SourcedText& text) const {
  return message_ >= 0 &&
         std::any_of(text.runs().begin(), text.runs().end(), [&](const SourcedText::Run& run) {
           return run.source.kind == Source::Kind::field && run.source.message > message_;
         });
}

void Evaluator::write(const SourcedText& text) {
  spend(text.size() / 8);
  if (text.size() > kLongestOutput - std::min(out_->size(), kLongestOutput)) {
    throw ValueError{cat("more than ", human_bytes(kLongestOutput), " of text")};
  }
  const bool anticipates = quotes_later_message(text);
  size_t begin = 0;
  const auto add = [&](size_t end, Source source) {
    // What the template itself makes at a message belongs to it, but where it writes what a later
    // one says there; an answer that is written at another message, or there, is quoted.
    const bool own = source.message < 0 || source.message == message_;
    if (anticipates && own) {
      source = {source.kind == Source::Kind::answer || source.kind == Source::Kind::field
                    ? Source::Kind::field
                    : Source::Kind::unknown,
                message_};
    } else if (source == Source{} && message_ >= 0) {
      source = {Source::Kind::template_, message_};
    } else if (source.kind == Source::Kind::answer && message_ >= 0 && source.message != message_) {
      source = {Source::Kind::field, message_};
    }
    out_->append_bytes(std::string_view(text.bytes()).substr(begin, end - begin), source);
    begin = end;
  };
  for (const SourcedText::Run& run : text.runs()) add(run.end, run.source);
  add(text.size(), {});
}

void Evaluator::spend(uint64_t work) {
  spent_ += std::min(work, kMostWork);
  if (spent_ > kMostWork) throw ValueError{"too much work for one conversation"};
}

Value Evaluator::text(SourcedText text) {
  spend(text.size() / 8);
  return make_text(std::move(text));
}

}  // namespace tptrain::chat_template::jinja
