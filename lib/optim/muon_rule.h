// Muon as a rule: the momentum of a layer's matrix, made orthogonal, is its update; everything else
// (embedding, head, norms, biases) goes by AdamW. Private to this folder.
#pragma once

#include "optim/update_rule.h"

namespace tptrain::optim {

class MuonRule final : public UpdateRule {
 public:
  std::string_view name() const override { return "muon"; }
  Unit unit(const parameters::Parameter& parameter) const override;
  bool takes_bf16_gradients() const override { return false; }
  std::vector<Slot> slots(Unit unit, const config::OptimizerConfig& options) const override;
  const std::vector<std::string>& all_slots() const override;
  std::unique_ptr<Update> update_of(std::vector<UpdateRange> ranges,
                                    const UpdateSettings& settings) const override;
};

}  // namespace tptrain::optim
