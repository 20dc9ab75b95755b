// Against which tensor's largest element a gradient's error is measured.
#pragma once

#include <string>

namespace tptrain::testing {

/// The tensor itself, but for the bias of k in a model without rotary embedding: it shifts all
/// scores of a query alike, which softmax does not see. Its gradient is zero, what is there is
/// rounding, and it is held to the scale of q's. `gradients` is a map by name; such a model shows by
/// its learned positions or, where these are frozen, by the bias of its LayerNorms.
template <typename Map>
std::string gradient_scale_of(const std::string& name, const Map& gradients) {
  const std::string ending = "self_attn.k_proj.bias";
  const bool rotary = gradients.count("model.embed_positions.weight") == 0 &&
                      gradients.count("model.norm.bias") == 0;
  if (!name.ends_with(ending) || rotary) return name;
  return name.substr(0, name.size() - ending.size()) + "self_attn.q_proj.bias";
}

}  // namespace tptrain::testing
