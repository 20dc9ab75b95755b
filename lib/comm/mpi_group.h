// An MPI communicator as an object: owned, errors returned as CommError, host messages
// (ControlGroup) on it. Internal to comm: with the backends' .cpp files the only place that sees
// mpi.h.
#pragma once

#include <mpi.h>

#include <string>
#include <string_view>

#include "comm/control.h"

namespace tptrain::comm {

/// Throws CommError with MPI's own text where `code` is not MPI_SUCCESS.
void check_mpi(int code, std::string_view call, std::string_view group);

class MpiGroup final : public ControlGroup {
 public:
  /// Takes over `comm` and frees it. From here on its errors come back instead of ending the
  /// process. `board`: gets each message of the host; may be null, else outlives this.
  MpiGroup(MPI_Comm comm, std::string name, ProgressBoard* board);
  ~MpiGroup() override;
  MpiGroup(const MpiGroup&) = delete;
  MpiGroup& operator=(const MpiGroup&) = delete;

  MPI_Comm handle() const { return comm_; }
  const std::string& name() const { return name_; }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override;
  std::string broadcast(const std::string& bytes, int root) override;
  std::vector<std::string> all_gather(const std::string& bytes) override;
  int64_t sum(int64_t value) override;
  int64_t max(int64_t value) override;
  std::vector<std::string> gather_from_work(const std::string& bytes) override;
  void still_working() override;
  ProgressBoard* board() override { return board_; }

 private:
  void tell_all(int tag);
  void hear_others();
  void pass_on_stop();
  void wait_hearing(MPI_Request& request);
  void write_on_board(std::string_view call, int64_t bytes);
  int64_t reduced(int64_t value, MPI_Op op, std::string_view call);

  MPI_Comm comm_;
  std::string name_;
  ProgressBoard* board_;
  bool stop_passed_on_ = false;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace tptrain::comm
