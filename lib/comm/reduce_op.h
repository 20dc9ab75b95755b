// How the terms of a collective are combined.
#pragma once

namespace tptrain::comm {

enum class ReduceOp { sum, max };

}  // namespace tptrain::comm
