// Events that works hand back when they are done with, so that a step makes none. Internal to comm.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

namespace tptrain::comm {

/// Without times. What is taken from it may outlive it.
class EventPool {
 public:
  /// Of one owner; goes back to the pool.
  class Event {
   public:
    Event(Event&& other) noexcept = default;
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event();
    cudaEvent_t get() const { return event_; }

   private:
    friend class EventPool;
    class Free;
    Event(std::shared_ptr<Free> free, cudaEvent_t event);
    std::shared_ptr<Free> free_;  // null: moved from
    cudaEvent_t event_;
  };

  EventPool();
  /// Throws CommError at `where` when the device makes no more.
  Event take(const std::string& where);

 private:
  std::shared_ptr<Event::Free> free_;
};

}  // namespace tptrain::comm
