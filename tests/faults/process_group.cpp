#include "process_group.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <stdexcept>

namespace tptrain::testing {
namespace {

// Sockets, so that a peer's death is an error and no signal.
void send_all(int socket, const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::send(socket, at, count, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) ::_exit(kPeerIsGone);
    at += done;
    count -= static_cast<size_t>(done);
  }
}

void receive_all(int socket, void* bytes, size_t count) {
  char* at = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::recv(socket, at, count, 0);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) ::_exit(kPeerIsGone);
    at += done;
    count -= static_cast<size_t>(done);
  }
}

void send_text(int socket, const std::string& text) {
  const uint64_t size = text.size();
  send_all(socket, &size, sizeof size);
  send_all(socket, text.data(), text.size());
}

std::string receive_text(int socket) {
  uint64_t size = 0;
  receive_all(socket, &size, sizeof size);
  std::string text(size, '\0');
  receive_all(socket, text.data(), text.size());
  return text;
}

class ProcessGroup final : public comm::ControlGroup {
 public:
  /// `sockets`: on rank 0 one to each rank (its own is not used), elsewhere one to rank 0.
  ProcessGroup(int rank, int size, std::vector<int> sockets)
      : rank_(rank), size_(size), sockets_(std::move(sockets)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override { all_gather(""); }
  std::string broadcast(const std::string& bytes, int root) override {
    return all_gather(rank_ == root ? bytes : "")[static_cast<size_t>(root)];
  }
  std::vector<std::string> all_gather(const std::string& bytes) override {
    std::vector<std::string> all(static_cast<size_t>(size_));
    if (rank_ != 0) {
      send_text(sockets_[0], bytes);
      for (std::string& text : all) text = receive_text(sockets_[0]);
      return all;
    }
    all[0] = bytes;
    for (size_t rank = 1; rank < all.size(); ++rank) all[rank] = receive_text(sockets_[rank]);
    for (size_t rank = 1; rank < all.size(); ++rank) {
      for (const std::string& text : all) send_text(sockets_[rank], text);
    }
    return all;
  }
  int64_t sum(int64_t value) override {
    int64_t total = 0;
    for (const std::string& text : all_gather(std::to_string(value))) total += std::stoll(text);
    return total;
  }
  int64_t max(int64_t value) override {
    for (const std::string& text : all_gather(std::to_string(value)))
      value = std::max<int64_t>(value, std::stoll(text));
    return value;
  }

 private:
  int rank_;
  int size_;
  std::vector<int> sockets_;
};

using Pair = std::array<int, 2>;

Pair socket_pair() {
  Pair pair;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    throw std::runtime_error("socketpair");
  return pair;
}

int code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

std::string read_to_end(int socket) {
  std::string text;
  std::array<char, 4096> piece;
  while (true) {
    const ssize_t count = ::recv(socket, piece.data(), piece.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return text;
    text.append(piece.data(), static_cast<size_t>(count));
  }
}

}  // namespace

RanksEnded run_processes(int size,
                         const std::function<void(comm::ControlGroup&, const Say&)>& body) {
  std::vector<Pair> to_first, to_caller;
  for (int rank = 0; rank < size; ++rank) {
    to_first.push_back(socket_pair());
    to_caller.push_back(socket_pair());
  }
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("fork");
    if (child > 0) {
      children.push_back(child);
      continue;
    }
    // Others' ends are closed, so that a rank that dies is seen to be gone.
    std::vector<int> sockets;
    for (int other = 0; other < size; ++other) {
      const Pair& pair = to_first[static_cast<size_t>(other)];
      if (rank == 0) sockets.push_back(pair[0]);
      if (rank != 0) ::close(pair[0]);
      if (rank != 0 && other == rank) sockets.push_back(pair[1]);
      if (rank == 0 || other != rank) ::close(pair[1]);
      ::close(to_caller[static_cast<size_t>(other)][0]);
      if (other != rank) ::close(to_caller[static_cast<size_t>(other)][1]);
    }
    const int caller = to_caller[static_cast<size_t>(rank)][1];
    const Say say = [caller](const std::string& word) {
      send_all(caller, (word + "\n").data(), word.size() + 1);
    };
    try {
      ProcessGroup group(rank, size, sockets);
      body(group, say);
    } catch (const std::exception& error) {
      say(std::string("threw ") + error.what());
      ::_exit(99);
    }
    ::_exit(0);
  }
  for (int rank = 0; rank < size; ++rank) {
    ::close(to_first[static_cast<size_t>(rank)][0]);
    ::close(to_first[static_cast<size_t>(rank)][1]);
    ::close(to_caller[static_cast<size_t>(rank)][1]);
  }
  RanksEnded ended;
  for (int rank = 0; rank < size; ++rank) {
    ended.words.push_back(read_to_end(to_caller[static_cast<size_t>(rank)][0]));
    ::close(to_caller[static_cast<size_t>(rank)][0]);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    ended.codes.push_back(code_of(status));
  }
  return ended;
}

}  // namespace tptrain::testing
