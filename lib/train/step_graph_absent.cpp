#include "base/error.h"
#include "train/step_graph.h"

namespace tptrain::train {

std::unique_ptr<StepGraph> capture(c10::Device, const std::function<void()>&) {
  throw InternalError(problem("a CUDA graph in a build without CUDA"));
}

}  // namespace tptrain::train
