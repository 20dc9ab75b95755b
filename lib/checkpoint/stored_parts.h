// The tensors of a StoredModel as the files have them: each with the canonical tensors that are its
// parts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sharding/stored_model.h"

namespace tptrain::checkpoint {

/// Throws InternalError where the parts of a stored tensor do not stand side by side in rising
/// order, do not cover it, or differ in form, where a name is given twice, or a transposed tensor
/// is no matrix.
void check_stored_model(const sharding::StoredModel& model);

/// The parts of each stored tensor, in the model's order; views of `model`, which must pass the
/// check.
std::vector<std::span<const sharding::StoredTensor>> stored_parts(
    const sharding::StoredModel& model);

}  // namespace tptrain::checkpoint
