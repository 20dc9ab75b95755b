// The side channel between hosts: who asks with the secret gets the states, and nobody waits for
// one that does not answer.
#include "comm/board_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "comm/control.h"
#include "comm/rank_boards.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

using namespace std::chrono_literals;
using namespace tptrain::comm;

std::vector<RankState> two_states() {
  std::vector<RankState> states(2);
  states[0].rank = 4;
  states[1].rank = 5;
  set_text(states[1].phase, "evaluation");
  return states;
}

/// Of this machine alone: tests need no network.
BoardEndpoint local(const BoardServer& server) {
  return {.addresses = {"127.0.0.1"}, .port = server.endpoint().port};
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

TEST_CASE("whoever knows the secret gets the states of the host's ranks") {
  const BoardServer server("0123456789abcdef", two_states);
  const auto states = ask_for_states(local(server), "0123456789abcdef", 60s);
  REQUIRE(states.has_value());
  REQUIRE(states->size() == 2);
  CHECK((*states)[1].rank == 5);
  CHECK(std::string((*states)[1].phase) == "evaluation");
  CHECK_FALSE(ask_for_states(local(server), "0123456789abcdeX", 2000ms).has_value());
}

TEST_CASE("one that does not answer is not waited for") {
  // Listens, as a stopped process does, and accepts nothing.
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof any;
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0);
  REQUIRE(listen(listener, 4) == 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&any), &length);
  const BoardEndpoint silent{.addresses = {"127.0.0.1"}, .port = ntohs(any.sin_port)};
  CHECK(seconds_of([&] { CHECK_FALSE(ask_for_states(silent, "secret", 200ms).has_value()); }) < 30);
  close(listener);
  CHECK_FALSE(ask_for_states(silent, "secret", 200ms).has_value());
  CHECK_FALSE(ask_for_states({}, "secret", 200ms).has_value());
}

TEST_CASE("a client that says nothing does not keep the others from an answer") {
  const BoardServer server("secret", two_states);
  const int dumb = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(server.endpoint().port));
  REQUIRE(connect(dumb, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  CHECK(ask_for_states(local(server), "secret", 60s).has_value());
  close(dumb);
}

TEST_CASE("an endpoint travels as text") {
  const BoardEndpoint sent{.addresses = {"10.0.0.1", "fd00::1"}, .port = 4711};
  const BoardEndpoint received = endpoint_from_wire(to_wire(sent));
  CHECK(received.addresses == sent.addresses);
  CHECK(received.port == 4711);
}

TEST_CASE("a rank alone sees itself, and says where it is") {
  SingleRank group;
  RankBoards boards(group, group);
  const RankBoards::Look look = boards.look();
  REQUIRE(look.ranks.size() == 1);
  CHECK(look.ranks[0].rank == 0);
  CHECK(look.ranks[0].process == getpid());
  CHECK(look.silent.empty());
  const StallSpeaker speaker = boards.speak_before_the_end();
  CHECK(speaker.place.find(" on ") == 0);
  CHECK(speaker.behind.empty());
  ProgressBoard board;
  board.enter("forward and backward", 57);
  board.collective("tp", "all_gather", 1000);
  boards.set_gpu(2);
  boards.show(board.read());
  CHECK(doing_of(boards.own()) == describe(board.read()));
  CHECK(name_of(boards.own()).find("(GPU 2)") != std::string::npos);
  CHECK(boards.own().ends_itself == 1);
}

TEST_CASE("whoever computes and asks the system for nothing is known on a busy host too") {
  constexpr int64_t second = 1'000'000'000;
  SelfWatch watch;
  int64_t now = 5 * second;
  ProcessStatus status{.state = 'R', .parent = 1, .in_program = 700, .in_system = 40};
  CHECK(watch.wants(now));
  CHECK_FALSE(watch.computes_alone(now, status));
  CHECK_FALSE(watch.wants(now + second / 2));
  // Twenty-five share a core: four ticks a second.
  const auto after_a_second = [&](int64_t in_program, int64_t in_system = 0) {
    now += second;
    status.in_program += in_program;
    status.in_system += in_system;
    CHECK(watch.wants(now));
    return watch.computes_alone(now, status);
  };
  CHECK_FALSE(after_a_second(4));
  CHECK_FALSE(after_a_second(4));
  CHECK(after_a_second(4));
  CHECK(after_a_second(4));  // until there is something else to say
  SECTION("one request of the system takes it back") { CHECK_FALSE(after_a_second(40, 1)); }
  SECTION("so does progress") {
    watch.restart();
    CHECK_FALSE(after_a_second(4));
  }
  SECTION("so does sleep") {
    status.state = 'S';
    CHECK_FALSE(after_a_second(4));
    CHECK_FALSE(after_a_second(40));
  }
  SECTION("and a core that is not to be had for long") {
    int seconds = 1;
    while (after_a_second(0)) ++seconds;
    CHECK(seconds == 19);  // of twenty
  }
}

TEST_CASE("a rank without progress that asks the system for nothing is known by that") {
  SingleRank group;
  RankBoards boards(group, group);
  ProgressBoard board;
  board.enter("forward and backward", 57);
  std::atomic<bool> done = false;
  bool seen = false;
  std::thread watchdog([&] {
    for (int i = 0; i < 6000 && !seen; ++i) {
      boards.show(board.read());
      seen = boards.own().computes_alone == 1;
      std::this_thread::sleep_for(50ms);
    }
    done = true;
  });
  while (!done) {
  }
  watchdog.join();
  CHECK(seen);
  board.advance();
  boards.show(board.read());
  CHECK(boards.own().computes_alone == 0);
  // Who waits asleep computes nothing.
  for (int i = 0; i < 25; ++i) {
    std::this_thread::sleep_for(50ms);
    boards.show(board.read());
  }
  CHECK(boards.own().computes_alone == 0);
}

}  // namespace tptrain::testing
