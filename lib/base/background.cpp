#include "base/background.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

namespace tptrain {

namespace {

constexpr int kNice = 10;

// Threads that it starts get it too. Where it is not allowed nothing is lost but the order.
void lower_priority_of_this_thread() { ::setpriority(PRIO_PROCESS, ::gettid(), kNice); }

}  // namespace

int usable_cores() { return cores_in_any({usable_core_set()}); }

std::string usable_core_set() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_ZERO(&allowed);  // not known
  return {reinterpret_cast<const char*>(&allowed), sizeof allowed};
}

int cores_in_any(const std::vector<std::string>& core_sets) {
  cpu_set_t all;
  CPU_ZERO(&all);
  for (const std::string& bytes : core_sets) {
    cpu_set_t one;
    std::memcpy(&one, bytes.data(), std::min(bytes.size(), sizeof one));
    CPU_OR(&all, &all, &one);
  }
  return std::max(CPU_COUNT(&all), 1);
}

void in_parallel(int64_t count, int threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next = 0;
  const auto take = [&] {
    try {
      for (int64_t i = next++; i < count; i = next++) work(i);
    } catch (...) {
      next = count;  // the others end with what they are at
      throw;
    }
  };
  std::vector<std::future<void>> others;
  const auto helpers = std::min<int64_t>(threads, count) - 1;
  for (int64_t i = 0; i < helpers; ++i) others.push_back(std::async(kBesideIfPossible, take));
  take();  // where it throws, the futures wait as they are destroyed
  for (const std::future<void>& other : others) await(other);
  for (std::future<void>& other : others) other.get();
}

BackgroundJob::BackgroundJob(Priority priority, std::function<void()> work)
    : future_(std::async(std::launch::async | std::launch::deferred,
                         [this, priority, work = std::move(work), owner = ::gettid()] {
                           if (priority == Priority::low && ::gettid() != owner)
                             lower_priority_of_this_thread();
                           try {
                             work();
                           } catch (...) {
                             failed_ = true;
                             throw;
                           }
                         })) {}

bool BackgroundJob::is_done() const {
  return future_.wait_for(std::chrono::seconds(0)) != std::future_status::timeout;
}

void BackgroundJob::get() {
  await(future_);
  future_.get();
}

}  // namespace tptrain
