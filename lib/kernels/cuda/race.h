// Times pieces of device work against one another: one after the other, again and again, so that a
// disturbance meets all of them; what counts is the best of each. Knows nothing of what they do.
#pragma once

#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <functional>
#include <vector>

namespace tptrain::kernels::cuda {

class Race {
 public:
  /// Each of `runs` gives its work to `stream`, and can do so any number of times.
  Race(std::vector<std::function<void()>> runs, const c10::cuda::CUDAStream& stream);

  /// Who is far behind does not run again. Waits for the device; returns what it took, in ms.
  float round();
  /// Of each run; infinity before the first round.
  const std::vector<float>& best_ms() const { return best_; }

 private:
  std::vector<std::function<void()>> runs_;
  std::vector<float> best_;
  std::vector<c10::cuda::CUDAEvent> events_;
  c10::cuda::CUDAStream stream_;
};

}  // namespace tptrain::kernels::cuda
