// The MPI library as an object: initialised (MPI_THREAD_FUNNELED) on construction, finalised on
// destruction. Owned by main, destroyed last.
#pragma once

#include <memory>
#include <string>

#include "comm/control.h"

namespace tptrain::comm {

class MpiSession final : public ControlGroup {
 public:
  /// Throws CommError where a session exists already. Started without mpirun it is a world of one
  /// rank. `board`: the board() of this session, which must outlive it; null: one of its own.
  MpiSession(int* argc, char*** argv, ProgressBoard* board = nullptr);
  /// Finalises. If an exception is in flight on this rank alone, main must call abort() instead:
  /// finalising waits for all ranks.
  ~MpiSession() override;
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const override;
  int size() const override;
  /// Rank and number of ranks on this host (MPI_COMM_TYPE_SHARED).
  int local_rank() const;
  int local_size() const;

  void barrier() override;
  std::string broadcast(const std::string& bytes, int root) override;
  std::vector<std::string> all_gather(const std::string& bytes) override;
  /// all_gather among the ranks of this host, by their local ranks.
  std::vector<std::string> all_gather_on_host(const std::string& bytes);
  int64_t sum(int64_t value) override;
  int64_t max(int64_t value) override;
  std::vector<std::string> gather_from_work(const std::string& bytes) override;
  void still_working() override;
  /// Of this process, never null: every collective of the session and of a mesh made from it is
  /// written there.
  ProgressBoard* board() override;

  /// Ends every rank of the job at once with this exit code. Does not return.
  [[noreturn]] void abort(int exit_code);

 private:
  friend class DeviceMesh;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::comm
