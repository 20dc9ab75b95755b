// Names of the kinds of state, as checkpoints write them.
#include "sharding/state_dict.h"

#include "base/error.h"

namespace tptrain::sharding {

std::string_view state_kind_name(StateKind kind) {
  switch (kind) {
    case StateKind::master:
      return "master";
    case StateKind::exp_avg:
      return "exp_avg";
    case StateKind::exp_avg_sq:
      return "exp_avg_sq";
  }
  throw InternalError(problem("a StateKind outside its enumeration"));
}

}  // namespace tptrain::sharding
