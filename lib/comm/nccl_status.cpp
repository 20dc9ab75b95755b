#include "comm/nccl_status.h"

#include <nccl.h>

#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/text.h"

namespace tptrain::comm {

namespace {

// The communicators of this process, for nccl_status(): a watchdog asks of all, and holds none.
struct Known {
  std::mutex mutex;
  std::vector<std::pair<ncclComm_t, std::string>> communicators;
};
Known& known() {
  static Known* const known = new Known;  // left to the end of the process: a thread may still ask
  return *known;
}

std::string status_of_known() {
  const std::lock_guard lock(known().mutex);
  std::vector<std::string> texts;
  for (const auto& [comm, name] : known().communicators) {
    ncclResult_t status = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm, &status);
    texts.push_back(
        cat("of ", name, ": ", ncclGetErrorString(asked == ncclSuccess ? status : asked)));
  }
  return texts.empty() ? "" : cat("NCCL says ", join(texts, ", "));
}

}  // namespace

void remember_nccl(ncclComm* comm, const std::string& name) {
  const std::lock_guard lock(known().mutex);
  known().communicators.emplace_back(comm, name);
}

void forget_nccl(ncclComm* comm) {
  const std::lock_guard lock(known().mutex);
  std::erase_if(known().communicators, [&](const auto& entry) { return entry.first == comm; });
}

std::string nccl_status() {
  auto answer = std::make_shared<std::promise<std::string>>();
  std::future<std::string> answered = answer->get_future();
  std::thread([answer] { answer->set_value(status_of_known()); }).detach();
  if (answered.wait_for(std::chrono::seconds(1)) != std::future_status::ready)
    return "NCCL does not answer";
  return answered.get();
}

}  // namespace tptrain::comm
