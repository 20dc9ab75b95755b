// Properties of the decoder, on whatever ranks `tp` has: the unit tests run them on one rank, the
// MPI tests on two and four. Collective over tp.
#pragma once

#include "comm/communicator.h"

namespace tptrain::testing {

/// Both losses and every gradient against the reference decoder: llama, with all biases, tied,
/// qwen2, heads and sizes that do not divide; sequence parallelism off and on. Recompute gives the
/// same numbers to the bit.
void check_decoder_against_reference(comm::Communicator& tp);
/// Sequences of one position up to several a rank, ranks without any position among them.
void check_sequence_lengths(comm::Communicator& tp);
/// Two micro-batches add up in main_grad.
void check_gradients_accumulate(comm::Communicator& tp);
/// next_token_logits for a prompt at once, token by token and in chunks, against the full forward.
void check_generation_against_reference(comm::Communicator& tp);
/// The collectives of a layer and of the two ends, each way, for every recompute.
void check_collectives(comm::Communicator& tp);

/// With dropout, losses and gradients are those of one rank.
void check_dropout_over_layouts(comm::Communicator& tp);
/// Dropout depends on seed, step and sample and on nothing else; evaluation has none.
void check_dropout_numbers(comm::Communicator& tp);
/// On one rank, with dropout: the gradient of each parameter is the slope of the loss along it.
void check_dropout_gradient();

/// Documents packed into one sequence, with a mask: the sums of the losses and gradients of each
/// alone, in the reference; recompute gives the same numbers to the bit. Without the mask, with one
/// end or with positions that go on over it, they are others.
void check_documents_against_reference(comm::Communicator& tp);
/// Documents with dropout, or of more tokens than there are positions, are refused.
void check_document_errors(comm::Communicator& tp);

/// evaluate() gives forward_backward's losses.
void check_evaluation(comm::Communicator& tp);

}  // namespace tptrain::testing
