#include "comm/cuda/event_pool.h"

#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

class EventPool::Event::Free {
 public:
  Free() = default;
  Free(const Free&) = delete;
  Free& operator=(const Free&) = delete;
  ~Free() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  cudaEvent_t take(const std::string& where) {
    cudaEvent_t event = nullptr;
    if (!events_.empty()) {
      event = events_.back();
      events_.pop_back();
      return event;
    }
    const cudaError_t code = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (code == cudaSuccess) return event;
    throw CommError(
        problem(cat("cudaEventCreateWithFlags failed (", cudaGetErrorString(code), ")")).at(where));
  }
  void give_back(cudaEvent_t event) { events_.push_back(event); }

 private:
  std::vector<cudaEvent_t> events_;
};

EventPool::Event::Event(std::shared_ptr<Free> free, cudaEvent_t event)
    : free_(std::move(free)), event_(event) {}

EventPool::Event::~Event() {
  if (free_) free_->give_back(event_);
}

EventPool::EventPool() : free_(std::make_shared<Event::Free>()) {}

EventPool::Event EventPool::take(const std::string& where) { return {free_, free_->take(where)}; }

}  // namespace tptrain::comm
