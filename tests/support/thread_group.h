// A ControlGroup whose ranks are threads of the test: for what several ranks agree on, without MPI.
// No tensors, and no more than a test needs: a rank that leaves makes the others' next call fail
// instead of hanging.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "comm/control.h"

namespace tptrain::testing {

class ThreadGroup {
 public:
  explicit ThreadGroup(int size) : size_(size), slots_(static_cast<size_t>(size)) {}

  /// Runs `body` as every rank and waits. What each rank threw, in rank order.
  std::vector<std::exception_ptr> run(const std::function<void(comm::ControlGroup&)>& body) {
    std::vector<std::exception_ptr> thrown(static_cast<size_t>(size_));
    std::vector<std::thread> threads;
    left_ = 0;
    for (int rank = 0; rank < size_; ++rank) {
      threads.emplace_back([&, rank] {
        Member member(*this, rank);
        try {
          body(member);
        } catch (...) {
          thrown[static_cast<size_t>(rank)] = std::current_exception();
        }
        leave();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return thrown;
  }

 private:
  // All ranks put their bytes, the last one publishes them.
  std::vector<std::string> exchange(int rank, const std::string& bytes) {
    std::unique_lock lock(mutex_);
    slots_[static_cast<size_t>(rank)] = bytes;
    const int64_t round = round_;
    if (++arrived_ == size_) {
      published_ = slots_;
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
      return published_;
    }
    changed_.wait(lock, [&] { return round_ != round || left_ > 0; });
    if (round_ == round) throw std::runtime_error("another rank left before this collective");
    return published_;
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    ++left_;
    changed_.notify_all();
  }

  class Member final : public comm::ControlGroup {
   public:
    Member(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return group_.size_; }
    void barrier() override { all_gather(""); }
    std::string broadcast(const std::string& bytes, int root) override {
      return all_gather(bytes)[static_cast<size_t>(root)];
    }
    std::vector<std::string> all_gather(const std::string& bytes) override {
      return group_.exchange(rank_, bytes);
    }
    int64_t sum(int64_t value) override {
      int64_t total = 0;
      for (const std::string& text : all_gather(std::to_string(value))) total += std::stoll(text);
      return total;
    }
    int64_t max(int64_t value) override {
      for (const std::string& text : all_gather(std::to_string(value))) {
        value = std::max<int64_t>(value, std::stoll(text));
      }
      return value;
    }

   private:
    ThreadGroup& group_;
    int rank_;
  };

  int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> slots_;
  std::vector<std::string> published_;
  int64_t round_ = 0;
  int arrived_ = 0;
  int left_ = 0;
};

/// Runs `body` on `size` ranks; the first exception of any rank is thrown.
inline void run_ranks(int size, const std::function<void(comm::ControlGroup&)>& body) {
  for (const std::exception_ptr& thrown : ThreadGroup(size).run(body)) {
    if (thrown) std::rethrow_exception(thrown);
  }
}

}  // namespace tptrain::testing
