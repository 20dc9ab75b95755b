// Properties of a decoder with adapters, on whatever ranks `tp` has: the unit tests run them on one
// rank, the MPI tests on two and four. Collective over tp.
#pragma once

#include "comm/communicator.h"

namespace tptrain::testing {

/// Losses, logits and every gradient against the reference decoder at the merged weights: all
/// families, all linears and some, tables saved whole (tied ones too), sequence parallelism off and
/// on. What is frozen gets no gradient, and recompute gives the same numbers to the bit.
void check_adapters_against_reference(comm::Communicator& tp);
/// With dropout of their input: one rank's losses and gradients; they depend on seed, step and
/// sample; recompute and evaluation know them.
void check_adapter_dropout(comm::Communicator& tp);
/// On one rank, with dropout: the gradient of each parameter is the slope of the loss along it.
void check_adapter_dropout_gradient();
/// No collective more than a training of the base itself makes.
void check_adapter_collectives(comm::Communicator& tp);

}  // namespace tptrain::testing
