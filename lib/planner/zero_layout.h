// What a layout asks of zero in one ZeRO stage: the same options that the engine gives it, so that
// memory and communication are counted from zero's own declarations.
#pragma once

#include "zero/options.h"
#include "zero/param_buckets.h"
#include "zero/state_layout.h"

namespace tptrain::planner {

struct Layout;

struct ZeroLayout {
  zero::ParamBuckets::Options buckets;
  zero::Options zero;
  zero::StateLayout state;
};
ZeroLayout zero_layout(const Layout& layout, int zero_stage);

}  // namespace tptrain::planner
