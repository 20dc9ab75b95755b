// Properties of the tensor-parallel layers and of the decoder, on whatever ranks `tp` has: the unit
// tests run them on one rank, the MPI tests on two and four. Collective over tp.
#pragma once

#include "comm/communicator.h"

namespace tptrain::testing {

void check_column_parallel_linear(comm::Communicator& tp);
void check_row_parallel_linear(comm::Communicator& tp);
void check_vocab_parallel_embedding(comm::Communicator& tp);
void check_vocab_parallel_cross_entropy(comm::Communicator& tp);
void check_regions(comm::Communicator& tp);

/// Loss and every gradient against the reference decoder: llama, with all biases, tied, qwen2.
void check_decoder_against_reference(comm::Communicator& tp);
/// Two micro-batches add up in main_grad.
void check_gradients_accumulate(comm::Communicator& tp);
/// next_token_logits for a prompt at once, token by token and in chunks, against the full forward.
void check_generation_against_reference(comm::Communicator& tp);
/// Two all-reduces a layer and direction.
void check_collectives_per_layer(comm::Communicator& tp);

}  // namespace tptrain::testing
