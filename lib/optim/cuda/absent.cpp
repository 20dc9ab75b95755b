// A build without CUDA: no tensor is on CUDA, so nothing comes here.
#include "base/error.h"
#include "optim/cuda/adamw.h"

namespace tptrain::optim::cuda {

namespace {

[[noreturn]] void absent() {
  throw InternalError(problem("AdamW on CUDA was asked for in a build without CUDA"));
}

}  // namespace

void begin(const Begin&, Stream) { absent(); }
void update(const Update&, Stream) { absent(); }

}  // namespace tptrain::optim::cuda
