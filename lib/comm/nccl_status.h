// What NCCL knows of its communicators when nothing moves: asked by a watchdog, from its own
// thread. One of nccl_status.cpp and cuda_backend_absent.cpp implements it, as with
// cuda_backend.h.
#pragma once

#include <string>

struct ncclComm;  // of nccl.h

namespace tptrain::comm {

/// "NCCL says of tp: no error, of dp: remote process exited or there was a network error"; "" where
/// this process has no communicator of NCCL. Waits for no other rank, and for the driver a second
/// at most.
std::string nccl_status();

/// A communicator is asked from here on, under its name; and no more. Of a build with CUDA.
void remember_nccl(ncclComm* comm, const std::string& name);
void forget_nccl(ncclComm* comm);

}  // namespace tptrain::comm
