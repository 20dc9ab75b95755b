#include "comm/mpi_group.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/stop.h"
#include "base/text.h"

namespace tptrain::comm {

namespace {

// MPI counts in int. Longer messages go in rounds of at most this many bytes over all ranks.
constexpr int64_t kRoundBytes = int64_t{1} << 28;

// Messages without content, from rank to rank, beside the collectives.
constexpr int kStillWorking = 1;
constexpr int kStop = 2;

// A rank that waits sleeps, so that its core is free for those who work: at first for as long as a
// short work may take, then longer.
constexpr auto kShortestSleep = std::chrono::microseconds(20);
constexpr auto kLongestSleep = std::chrono::microseconds(2000);

}  // namespace

void check_mpi(int code, std::string_view call, std::string_view group) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  throw CommError(
      problem(cat(call, " failed with MPI error ", code, ", ", std::string_view(text, length)))
          .at(std::string(group))
          .remedy("Where another rank failed before this one, its message names the cause."));
}

MpiGroup::MpiGroup(MPI_Comm comm, std::string name, ProgressBoard* board)
    : comm_(comm), name_(std::move(name)), board_(board) {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", name_);
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", name_);
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", name_);
}

MpiGroup::~MpiGroup() { MPI_Comm_free(&comm_); }

void MpiGroup::write_on_board(std::string_view call, int64_t bytes) {
  if (board_ != nullptr) board_->collective(name_, call, bytes);
}

void MpiGroup::barrier() {
  write_on_board("host barrier", 0);
  check_mpi(MPI_Barrier(comm_), "MPI_Barrier", name_);
}

std::string MpiGroup::broadcast(const std::string& bytes, int root) {
  int64_t size_bytes = rank_ == root ? static_cast<int64_t>(bytes.size()) : 0;
  write_on_board("host broadcast", size_bytes);
  check_mpi(MPI_Bcast(&size_bytes, 1, MPI_INT64_T, root, comm_), "MPI_Bcast", name_);
  std::string result = rank_ == root ? bytes : std::string(size_bytes, '\0');
  for (int64_t done = 0; done < size_bytes; done += kRoundBytes) {
    const int count = static_cast<int>(std::min(kRoundBytes, size_bytes - done));
    check_mpi(MPI_Bcast(result.data() + done, count, MPI_CHAR, root, comm_), "MPI_Bcast", name_);
  }
  return result;
}

std::vector<std::string> MpiGroup::all_gather(const std::string& bytes) {
  const auto own_size = static_cast<int64_t>(bytes.size());
  write_on_board("host all_gather", own_size * size_);
  std::vector<int64_t> sizes(size_);
  check_mpi(MPI_Allgather(&own_size, 1, MPI_INT64_T, sizes.data(), 1, MPI_INT64_T, comm_),
            "MPI_Allgather", name_);
  const int64_t longest = *std::max_element(sizes.begin(), sizes.end());
  const int64_t share = std::max<int64_t>(1, kRoundBytes / size_);  // bytes of a rank in a round

  std::vector<std::string> result(size_);
  std::vector<int> counts(size_);
  std::vector<int> offsets(size_);
  std::string round;
  for (int64_t done = 0; done < longest; done += share) {
    for (int r = 0; r < size_; ++r) {
      counts[r] = static_cast<int>(std::clamp<int64_t>(sizes[r] - done, 0, share));
      offsets[r] = r == 0 ? 0 : offsets[r - 1] + counts[r - 1];
    }
    round.resize(offsets.back() + counts.back());
    const char* own = bytes.data() + std::min(done, own_size);
    check_mpi(MPI_Allgatherv(own, counts[rank_], MPI_CHAR, round.data(), counts.data(),
                             offsets.data(), MPI_CHAR, comm_),
              "MPI_Allgatherv", name_);
    for (int r = 0; r < size_; ++r) result[r].append(round, offsets[r], counts[r]);
  }
  return result;
}

void MpiGroup::tell_all(int tag) {
  for (int other = 0; other < size_; ++other) {
    if (other == rank_) continue;
    // Without content it needs no buffer and no answer: nobody waits for it to be received.
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, other, tag, comm_, &request), "MPI_Isend", name_);
    check_mpi(MPI_Request_free(&request), "MPI_Request_free", name_);
  }
}

void MpiGroup::hear_others() {
  while (true) {
    int there = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &there, &status), "MPI_Iprobe", name_);
    if (!there) return;
    check_mpi(
        MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, comm_, MPI_STATUS_IGNORE),
        "MPI_Recv", name_);
    if (status.MPI_TAG == kStop) {
      request_stop();
      stop_passed_on_ = true;  // who was asked told everybody
    } else if (board_ != nullptr) {
      board_->advance();
    }
  }
}

void MpiGroup::pass_on_stop() {
  if (stop_requested() && !std::exchange(stop_passed_on_, true)) tell_all(kStop);
}

void MpiGroup::still_working() {
  hear_others();
  pass_on_stop();
  tell_all(kStillWorking);
}

void MpiGroup::wait_hearing(MPI_Request& request) {
  auto sleep = kShortestSleep;
  while (true) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test", name_);
    hear_others();
    if (done) return;
    pass_on_stop();
    std::this_thread::sleep_for(sleep);
    sleep = std::min(2 * sleep, kLongestSleep);
  }
}

std::vector<std::string> MpiGroup::gather_from_work(const std::string& bytes) {
  write_on_board("host gather of outcomes", static_cast<int64_t>(bytes.size()) * size_);
  const auto own_size = static_cast<int64_t>(bytes.size());
  int64_t longest = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(&own_size, &longest, 1, MPI_INT64_T, MPI_MAX, comm_, &request),
            "MPI_Iallreduce", name_);
  wait_hearing(request);
  if (longest == 0) return std::vector<std::string>(size_);
  return all_gather(bytes);  // all are there now
}

int64_t MpiGroup::reduced(int64_t value, MPI_Op op, std::string_view call) {
  int64_t result = 0;
  write_on_board("host all_reduce", sizeof value);
  check_mpi(MPI_Allreduce(&value, &result, 1, MPI_INT64_T, op, comm_), call, name_);
  return result;
}

int64_t MpiGroup::sum(int64_t value) { return reduced(value, MPI_SUM, "MPI_Allreduce (sum)"); }
int64_t MpiGroup::max(int64_t value) { return reduced(value, MPI_MAX, "MPI_Allreduce (max)"); }

}  // namespace tptrain::comm
