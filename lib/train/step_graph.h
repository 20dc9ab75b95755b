// A sequence of device work, captured once as a CUDA graph and replayed: what the host issued in
// thousands of calls goes to the device in one. Knows nothing of steps. In a build without CUDA
// (step_graph_absent.cpp) there is none.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace tptrain::train {

class StepGraph {
 public:
  virtual ~StepGraph() = default;
  virtual void replay() = 0;
};

/// Captures what `work` gives the current stream of `device`, a CUDA device; nothing of it runs.
/// `work` has been done once before, uncaptured, so that libraries are set up, and every address it
/// uses stays valid as long as the graph; memory it takes from the caching allocator comes from a
/// pool of the graph's own. Throws InternalError where something in it cannot be captured.
std::unique_ptr<StepGraph> capture(c10::Device device, const std::function<void()>& work);

/// Destroys a graph, or none, when its last replay is done, and gives the memory of its pool back
/// to the device: a step that is not replayed takes as much again.
void release(std::unique_ptr<StepGraph> graph, c10::Device device);

}  // namespace tptrain::train
