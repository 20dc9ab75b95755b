#include "comm/board_server.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <future>
#include <sstream>
#include <utility>

#include "base/text.h"

namespace tptrain::comm {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kClientMayTake{500};
constexpr uint32_t kMostStates = 4096;  // of a host

class Socket {
 public:
  explicit Socket(int number) : number_(number) {}
  Socket(Socket&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  ~Socket() {
    if (number_ >= 0) close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

bool wait_for(int socket, short event, Clock::time_point until) {
  pollfd look{.fd = socket, .events = event, .revents = 0};
  const auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now()).count();
  return left > 0 && poll(&look, 1, static_cast<int>(left)) == 1;
}

// Sockets do not block here: how long they may take is counted over all of a message.
bool send_all(int socket, const void* bytes, size_t count, Clock::time_point until) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    if (!wait_for(socket, POLLOUT, until)) return false;
    const ssize_t sent = send(socket, at, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (sent <= 0) return false;
    at += sent;
    count -= static_cast<size_t>(sent);
  }
  return true;
}

bool receive_all(int socket, void* bytes, size_t count, Clock::time_point until) {
  char* at = static_cast<char*>(bytes);
  while (count > 0) {
    if (!wait_for(socket, POLLIN, until)) return false;
    const ssize_t received = recv(socket, at, count, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (received <= 0) return false;
    at += received;
    count -= static_cast<size_t>(received);
  }
  return true;
}

/// Numeric addresses of this host that others may reach.
std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses;
  ifaddrs* interfaces = nullptr;
  if (getifaddrs(&interfaces) != 0) return addresses;
  for (const ifaddrs* one = interfaces; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || !(one->ifa_flags & IFF_UP) || (one->ifa_flags & IFF_LOOPBACK))
      continue;
    const int family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    char text[NI_MAXHOST] = {};
    if (getnameinfo(one->ifa_addr, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0)
      continue;
    // A link-local address means another interface on each host.
    if (std::strchr(text, '%') == nullptr) addresses.emplace_back(text);
  }
  freeifaddrs(interfaces);
  return addresses;
}

/// Listens on every address at a port that the system chooses; -1 where that is not possible.
int listen_somewhere(int& port) {
  Socket socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int both = 0;
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_addr = in6addr_any;
  if (socket.number() >= 0 &&
      setsockopt(socket.number(), IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both) == 0 &&
      bind(socket.number(), reinterpret_cast<sockaddr*>(&any), sizeof any) == 0 &&
      listen(socket.number(), SOMAXCONN) == 0) {
    socklen_t length = sizeof any;
    getsockname(socket.number(), reinterpret_cast<sockaddr*>(&any), &length);
    port = ntohs(any.sin6_port);
    return dup(socket.number());
  }
  Socket older(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in any4{};
  any4.sin_family = AF_INET;
  if (older.number() < 0 ||
      bind(older.number(), reinterpret_cast<sockaddr*>(&any4), sizeof any4) != 0 ||
      listen(older.number(), SOMAXCONN) != 0)
    return -1;
  socklen_t length = sizeof any4;
  getsockname(older.number(), reinterpret_cast<sockaddr*>(&any4), &length);
  port = ntohs(any4.sin_port);
  return dup(older.number());
}

/// A connection to the address, or a socket that has none.
Socket connect_to(const std::string& address, int port, Clock::time_point until) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    return Socket(-1);
  Socket socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int result = connect(socket.number(), found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (result == 0) return socket;
  int error = errno;
  socklen_t length = sizeof error;
  if (error == EINPROGRESS && wait_for(socket.number(), POLLOUT, until))
    getsockopt(socket.number(), SOL_SOCKET, SO_ERROR, &error, &length);
  return error == 0 ? std::move(socket) : Socket(-1);
}

std::optional<std::vector<RankState>> ask_address(const std::string& address, int port,
                                                  const std::string& secret,
                                                  Clock::time_point until) {
  const Socket socket = connect_to(address, port, until);
  uint32_t count = 0;
  if (socket.number() < 0 || !send_all(socket.number(), secret.data(), secret.size(), until) ||
      !receive_all(socket.number(), &count, sizeof count, until) || count > kMostStates)
    return std::nullopt;
  std::vector<RankState> states(count);
  if (!receive_all(socket.number(), states.data(), count * sizeof(RankState), until))
    return std::nullopt;
  return states;
}

}  // namespace

std::string to_wire(const BoardEndpoint& endpoint) {
  return cat(endpoint.port, " ", join(endpoint.addresses, " "));
}

BoardEndpoint endpoint_from_wire(const std::string& text) {
  BoardEndpoint endpoint;
  std::istringstream words(text);
  words >> endpoint.port;
  for (std::string word; words >> word;) endpoint.addresses.push_back(word);
  return endpoint;
}

BoardServer::BoardServer(std::string secret, std::function<std::vector<RankState>()> states)
    : secret_(std::move(secret)), states_(std::move(states)) {
  listener_ = listen_somewhere(endpoint_.port);
  if (listener_ < 0 || pipe(wake_) != 0) return;
  endpoint_.addresses = own_addresses();
  thread_ = std::thread([this] { serve(); });
}

BoardServer::~BoardServer() {
  if (wake_[1] >= 0) close(wake_[1]);
  if (thread_.joinable()) thread_.join();
  if (wake_[0] >= 0) close(wake_[0]);
  if (listener_ >= 0) close(listener_);
}

void BoardServer::serve() {
  // A signal to this process is for the thread that does the work.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  while (true) {
    pollfd looks[2] = {{.fd = listener_, .events = POLLIN, .revents = 0},
                       {.fd = wake_[0], .events = POLLIN, .revents = 0}};
    if (poll(looks, 2, -1) < 0) continue;
    if (looks[1].revents != 0) return;
    const Socket connection(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    if (connection.number() >= 0) answer(connection.number());
  }
}

void BoardServer::answer(int connection) {
  const Clock::time_point until = Clock::now() + kClientMayTake;
  std::string said(secret_.size(), '\0');
  if (!receive_all(connection, said.data(), said.size(), until) || said != secret_) return;
  const std::vector<RankState> states = states_();
  const auto count = static_cast<uint32_t>(states.size());
  if (!send_all(connection, &count, sizeof count, until)) return;
  send_all(connection, states.data(), states.size() * sizeof(RankState), until);
}

std::optional<std::vector<RankState>> ask_for_states(const BoardEndpoint& endpoint,
                                                     const std::string& secret,
                                                     milliseconds limit) {
  const Clock::time_point until = Clock::now() + limit;
  // Beside one another: which of its addresses this host reaches is not known.
  std::vector<std::future<std::optional<std::vector<RankState>>>> answers;
  for (const std::string& address : endpoint.addresses)
    answers.push_back(std::async(std::launch::async, [&endpoint, &secret, address, until] {
      return ask_address(address, endpoint.port, secret, until);
    }));
  std::optional<std::vector<RankState>> first;
  for (auto& answer : answers) {
    auto states = answer.get();
    if (states && !first) first = std::move(states);
  }
  return first;
}

}  // namespace tptrain::comm
