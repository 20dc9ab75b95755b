#include "base/error.h"
#include "train/step_graph.h"

namespace tptrain::train {

std::unique_ptr<StepGraph> capture(c10::Device, const std::function<void()>&) {
  throw InternalError(problem("a CUDA graph in a build without CUDA"));
}

void release(std::unique_ptr<StepGraph>, c10::Device) {}  // there is none

}  // namespace tptrain::train
