#include "comm/mpi_session.h"

#include <cstdlib>

#include "base/error.h"
#include "base/text.h"
#include "comm/mpi_session_impl.h"

namespace tptrain::comm {

MpiSession::MpiSession(int* argc, char*** argv, ProgressBoard* board)
    : impl_(std::make_unique<Impl>()) {
  impl_->board = board != nullptr ? board : &impl_->own_board;
  int initialized = 0;
  check_mpi(MPI_Initialized(&initialized), "MPI_Initialized", "world");
  if (initialized) {
    throw CommError(problem("a second MpiSession in this process")
                        .must("be the only one: MPI can be started once")
                        .remedy("Pass the first session on instead of making another."));
  }
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread",
            "world");
  // Errors of calls that belong to no communicator are raised on MPI_COMM_WORLD.
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler",
            "world");
  if (provided < MPI_THREAD_FUNNELED) {
    throw CommError(problem(cat("this MPI library grants thread level ", provided))
                        .must(cat("grant MPI_THREAD_FUNNELED, ", MPI_THREAD_FUNNELED))
                        .remedy("Use an MPI library built with thread support."));
  }
  MPI_Comm world = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup", "world");
  impl_->world = std::make_unique<MpiGroup>(world, "world", impl_->board);
  MPI_Comm host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &host),
            "MPI_Comm_split_type", "world");
  impl_->host = std::make_unique<MpiGroup>(host, "host", impl_->board);
}

MpiSession::~MpiSession() {
  impl_.reset();
  MPI_Finalize();
}

int MpiSession::rank() const { return impl_->world->rank(); }
int MpiSession::size() const { return impl_->world->size(); }
int MpiSession::local_rank() const { return impl_->host->rank(); }
int MpiSession::local_size() const { return impl_->host->size(); }

void MpiSession::barrier() { impl_->world->barrier(); }
std::string MpiSession::broadcast(const std::string& bytes, int root) {
  return impl_->world->broadcast(bytes, root);
}
std::vector<std::string> MpiSession::all_gather(const std::string& bytes) {
  return impl_->world->all_gather(bytes);
}
std::vector<std::string> MpiSession::all_gather_on_host(const std::string& bytes) {
  return impl_->host->all_gather(bytes);
}
int64_t MpiSession::sum(int64_t value) { return impl_->world->sum(value); }
int64_t MpiSession::max(int64_t value) { return impl_->world->max(value); }
std::vector<std::string> MpiSession::gather_from_work(const std::string& bytes) {
  return impl_->world->gather_from_work(bytes);
}
void MpiSession::still_working() { impl_->world->still_working(); }
ProgressBoard* MpiSession::board() { return impl_->board; }

void MpiSession::abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);  // MPI_Abort does not return; the compiler does not know
}

}  // namespace tptrain::comm
