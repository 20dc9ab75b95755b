// The rules that look at one element at a time. Such a rule is a struct with a name, its slots'
// names, the constants of an update and the step of an element (adamw.h): the loops on the CPU, the
// kernels on CUDA, the checks and the registry are made of these lists.
#pragma once

#include "optim/adamw.h"
#include "optim/lion.h"
#include "optim/muon.h"

/// What optimizer.type can be, of them.
#define TPTRAIN_NAMED_ELEMENT_RULES(EACH) EACH(AdamW) EACH(Lion)
/// With those that are passes of another rule.
#define TPTRAIN_ELEMENT_RULES(EACH) \
  TPTRAIN_NAMED_ELEMENT_RULES(EACH) EACH(MuonMomentum) EACH(MuonStep)

namespace tptrain::optim {

inline constexpr int kMostSlots = 2;  // of an element rule

/// Whether gradients may be bf16. What works on whole matrices has fp32 memory for them anyway.
template <typename Rule>
inline constexpr bool kTakesBf16Gradients = true;
template <>
inline constexpr bool kTakesBf16Gradients<MuonMomentum> = false;
template <>
inline constexpr bool kTakesBf16Gradients<MuonStep> = false;

}  // namespace tptrain::optim
