// The rules by name.
#include "optim/update_rule.h"

#include <set>

#include "base/error.h"
#include "base/text.h"
#include "optim/element_update.h"
#include "optim/muon_rule.h"

namespace tptrain::optim {
namespace {

template <typename Rule>
class ElementRule final : public UpdateRule {
 public:
  std::string_view name() const override { return Rule::kName; }
  Unit unit(const parameters::Parameter&) const override { return Unit::element; }
  bool takes_bf16_gradients() const override { return kTakesBf16Gradients<Rule>; }
  std::vector<Slot> slots(Unit, const config::OptimizerConfig& options) const override {
    return slots_of<Rule>(options);
  }
  const std::vector<std::string>& all_slots() const override { return slot_names_of<Rule>(); }
  std::unique_ptr<Update> update_of(std::vector<UpdateRange> ranges,
                                    const UpdateSettings& settings) const override {
    return element_update<Rule>(std::move(ranges), settings);
  }
};

template <typename Rule>
const UpdateRule* the() {
  static const Rule rule;
  return &rule;
}

const std::vector<const UpdateRule*>& rules() {
#define TPTRAIN_REGISTER(Rule) the<ElementRule<Rule>>(),
  static const std::vector<const UpdateRule*> all = {TPTRAIN_NAMED_ELEMENT_RULES(TPTRAIN_REGISTER)
                                                         the<MuonRule>()};
#undef TPTRAIN_REGISTER
  return all;
}

std::set<std::string> set_of(const std::vector<std::string>& slots) {
  return {slots.begin(), slots.end()};
}

}  // namespace

void Update::run(const UpdateStep& step) {
  begin(step);
  for (int part = 0; part < parts(); ++part) apply(part, step);
}

std::string rule_keeping(const std::vector<std::string>& slots) {
  const std::set<std::string> wanted = set_of(slots);
  for (const UpdateRule* rule : rules()) {
    if (wanted == set_of(rule->all_slots())) return std::string(rule->name());
  }
  for (const UpdateRule* rule : rules()) {
    if (wanted == set_of(names_of(rule->slots(Unit::matrix, {})))) return std::string(rule->name());
  }
  return "";
}

const UpdateRule& update_rule(config::OptimizerType type) {
  for (const UpdateRule* rule : rules()) {
    if (rule->name() == config::word(type)) return *rule;
  }
  throw InternalError(
      problem(cat("update rule '", config::word(type), "'")).must("be one that optim knows"));
}

}  // namespace tptrain::optim
