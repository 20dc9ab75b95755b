// Properties of the tensor-parallel layers, on whatever ranks `tp` has: the unit tests run them on
// one rank, the MPI tests on two and four. Collective over tp. The decoder's are
// decoder_checks.h's.
#pragma once

#include "comm/communicator.h"

namespace tptrain::testing {

/// Forward and backward against autograd on the whole weights; features that do not divide.
void check_column_parallel_linear(comm::Communicator& tp);
void check_row_parallel_linear(comm::Communicator& tp);
/// The same with a vocabulary that does not divide, the sequence sliced and not.
void check_vocab_parallel_embedding(comm::Communicator& tp);
/// Both sums and the gradient with and without z-loss; ignored targets; no target at all.
void check_vocab_parallel_cross_entropy(comm::Communicator& tp);
/// gather and reduce, sliced and not, for lengths that divide and that do not: what they give, what
/// they cost, and that padding is zero and reaches nothing.
void check_sequence_region(comm::Communicator& tp);

}  // namespace tptrain::testing
