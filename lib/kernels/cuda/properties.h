// What the kernels ask of the device they are about to run on (the current one). Plain numbers.
#pragma once

namespace tptrain::kernels::cuda {

int multiprocessors();
/// Shared memory that a block may have at most, and that the blocks of a multiprocessor share.
int shared_bytes_of_block();
int shared_bytes_of_multiprocessor();
/// 90 for 9.0
int capability();

}  // namespace tptrain::kernels::cuda
