// A build without CUDA: no tensor is on CUDA, so nothing comes here.
#include "base/error.h"
#include "zero/cuda/passes.h"

namespace tptrain::zero::cuda {

namespace {

[[noreturn]] void absent() {
  throw InternalError(problem("a pass over CUDA tensors was asked for in a build without CUDA"));
}

}  // namespace

void sums_of_squares(const SumsOfSquares&, Stream) { absent(); }
void mark_nonfinite(const Marks&, Stream) { absent(); }
void clear_rows(const ClearRows&, Stream) { absent(); }

}  // namespace tptrain::zero::cuda
