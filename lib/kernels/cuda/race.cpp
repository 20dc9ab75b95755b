#include "kernels/cuda/race.h"

#include <ATen/cuda/Sleep.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace tptrain::kernels::cuda {

namespace {

constexpr float kHopeless = 1.1f;  // times the best
// While the device spins (0.25 ms), the host launches a whole round: no candidate waits for it.
constexpr int64_t kHeadStartCycles = 500'000;

}  // namespace

Race::Race(std::vector<std::function<void()>> runs, const c10::cuda::CUDAStream& stream)
    : runs_(std::move(runs)),
      best_(runs_.size(), std::numeric_limits<float>::infinity()),
      stream_(stream) {
  for (size_t i = 0; i <= runs_.size(); ++i) events_.emplace_back(cudaEventDefault);
}

float Race::round() {
  const float hopeless = kHopeless * *std::ranges::min_element(best_);
  std::vector<size_t> running;
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (!(best_[i] > hopeless)) running.push_back(i);
  }
  at::cuda::sleep(kHeadStartCycles);
  events_.front().record(stream_);
  for (size_t place = 0; place < running.size(); ++place) {
    runs_[running[place]]();
    events_[place + 1].record(stream_);
  }
  events_[running.size()].synchronize();
  for (size_t place = 0; place < running.size(); ++place) {
    float& best = best_[running[place]];
    best = std::min(best, events_[place].elapsed_time(events_[place + 1]));
  }
  return events_.front().elapsed_time(events_[running.size()]);
}

}  // namespace tptrain::kernels::cuda
