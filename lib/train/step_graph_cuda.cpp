#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

#include "base/error.h"
#include "base/text.h"
#include "train/out_of_memory.h"
#include "train/step_graph.h"

namespace tptrain::train {

namespace {

class CudaStepGraph final : public StepGraph {
 public:
  explicit CudaStepGraph(const std::function<void()>& work) {
    // Threads of NCCL and of the watchdog go on: only calls of this one belong to the graph.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      give_up();
      throw;
    }
    graph_.capture_end();
  }
  void replay() override { graph_.replay(); }

 private:
  // The stream must take plain calls again: whoever tells of the error asks the device for numbers.
  void give_up() noexcept {
    try {
      graph_.capture_end();
    } catch (const std::exception&) {
      // A capture that a failed call has spoilt ends by this all the same.
    }
  }

  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<StepGraph> capture(c10::Device device, const std::function<void()>& work) {
  c10::cuda::getCurrentCUDAStream(device.index()).synchronize();
  // What the uncaptured step took and freed: the graph's pool takes as much again.
  c10::cuda::CUDACachingAllocator::emptyCache();
  try {
    return std::make_unique<CudaStepGraph>(work);
  } catch (const c10::Error& error) {
    if (is_out_of_memory(error)) throw;  // nothing is wrong with the graph
    throw InternalError(
        problem(cat("a training step cannot be captured as a CUDA graph (",
                    error.what_without_backtrace(), ")"))
            .remedy("Set train.cuda_graphs to off, which issues every step call by call."));
  }
}

void release(std::unique_ptr<StepGraph> graph, c10::Device device) {
  if (!graph) return;
  c10::cuda::getCurrentCUDAStream(device.index()).synchronize();
  graph.reset();
  c10::cuda::CUDACachingAllocator::emptyCache();
}

}  // namespace tptrain::train
